//! `authorizer` in expressions (`library/authz.go`): checks are put together here and decided by whoever gave it.

use super::declare;
use super::static_type::Type;
use super::value::Val;

/// Decides what an expression asks for.
pub trait Authorize {
    /// Whether the subject may; errors come back as a decision.
    fn authorize(&self, check: &Check) -> Decision;
}

/// What is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Check {
    /// Namespace and name of a service account; `None`: the user of the request.
    pub service_account: Option<(String, String)>,
    /// A path that is no resource; empty for a resource.
    pub path: String,
    pub group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    pub field_selector: String,
    pub label_selector: String,
    pub verb: String,
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Decision {
    pub allowed: bool,
    pub reason: String,
    /// Empty where the check could be made.
    pub error: String,
}

/// A step on the way from `authorizer` to a decision.
#[derive(Clone)]
pub struct Subject<'a> {
    by: &'a dyn Authorize,
    check: Check,
    stage: Stage,
}

#[derive(Clone, Debug)]
enum Stage {
    Authorizer,
    Path,
    Group,
    Resource,
    Decided(Decision),
}

impl std::fmt::Debug for Subject<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {:?}", self.stage, self.check)
    }
}

impl<'a> Subject<'a> {
    /// `authorizer` itself.
    pub fn new(by: &'a dyn Authorize) -> Self {
        Self { by, check: Check::default(), stage: Stage::Authorizer }
    }

    /// `authorizer.requestResource`: a check of what is being requested.
    pub fn of_request(by: &'a dyn Authorize, check: Check) -> Self {
        Self { by, check, stage: Stage::Resource }
    }

    /// The type of `authorizer`.
    pub fn authorizer_type() -> Type {
        declare::opaque("authorizer")
    }

    /// The type of `authorizer.requestResource`.
    pub fn resource_type() -> Type {
        declare::opaque("resourceCheck")
    }

    pub(super) fn type_of(&self) -> Type {
        declare::opaque(match self.stage {
            Stage::Authorizer => "authorizer",
            Stage::Path => "pathCheck",
            Stage::Group => "groupCheck",
            Stage::Resource => "resourceCheck",
            Stage::Decided(_) => "decision",
        })
    }

    fn step<'b>(&self, stage: Stage, change: impl FnOnce(&mut Check)) -> Result<Val<'b>, String>
    where
        'a: 'b,
    {
        let mut next = self.clone();
        next.stage = stage;
        change(&mut next.check);
        Ok(Val::Authorizer(std::rc::Rc::new(next)))
    }
}

/// Functions of the authorizer; `None` for others.
pub(super) fn call<'a>(name: &str, args: &[Val<'a>]) -> Option<Result<Val<'a>, String>> {
    let (Val::Authorizer(of), rest) = args.split_first()? else { return None };
    let texts: Vec<String> = rest.iter().map(|arg| arg.as_text().map(str::to_owned)).collect::<Option<_>>()?;
    let text = texts.first().cloned().unwrap_or_default();
    let second = texts.get(1).cloned().unwrap_or_default();
    Some(match (&of.stage, name) {
        (Stage::Authorizer, "serviceAccount") => {
            of.step(Stage::Authorizer, |check| check.service_account = Some((text, second)))
        }
        (Stage::Authorizer, "path") if text.is_empty() => Err("path must not be empty".into()),
        (Stage::Authorizer, "path") => of.step(Stage::Path, |check| check.path = text),
        (Stage::Authorizer, "group") => of.step(Stage::Group, |check| check.group = text),
        (Stage::Group, "resource") => of.step(Stage::Resource, |check| check.resource = text),
        (Stage::Resource, "subresource") => of.step(Stage::Resource, |check| check.subresource = text),
        (Stage::Resource, "namespace") => of.step(Stage::Resource, |check| check.namespace = text),
        (Stage::Resource, "name") => of.step(Stage::Resource, |check| check.name = text),
        (Stage::Resource, "fieldSelector") => of.step(Stage::Resource, |check| check.field_selector = text),
        (Stage::Resource, "labelSelector") => of.step(Stage::Resource, |check| check.label_selector = text),
        (Stage::Path | Stage::Resource, "check") => {
            let mut check = of.check.clone();
            check.verb = text;
            let decision = of.by.authorize(&check);
            of.step(Stage::Decided(decision), |asked| *asked = check)
        }
        (Stage::Decided(decision), "allowed") => Ok(Val::Bool(decision.allowed)),
        (Stage::Decided(decision), "reason") => Ok(Val::text(decision.reason.clone())),
        (Stage::Decided(decision), "errored") => Ok(Val::Bool(!decision.error.is_empty())),
        (Stage::Decided(decision), "error") => Ok(Val::text(decision.error.clone())),
        _ => return None,
    })
}
