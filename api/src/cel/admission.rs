//! Expressions of admission: what webhooks' match conditions and policies may name
//! (`k8s.io/apiserver/pkg/admission/plugin/cel`).

use serde_json::Value;

use super::policy::{Expression, OUT_OF_BUDGET};
use super::{Authorize, Check, Environment, Failure, Scope, Subject, Type, Val};

/// The most that all match conditions of one webhook or binding may cost
/// (`celconfig.RuntimeCELCostBudgetMatchConditions`).
pub const MATCH_BUDGET: u64 = 2_500_000;

/// Which of the optional variables there are.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct Options {
    pub params: bool,
    pub authorizer: bool,
}

/// What an admission expression may name.
pub fn environment(options: Options) -> Environment {
    let mut environment = Environment::default()
        .with("object", Type::DYN)
        .with("oldObject", Type::DYN)
        .with("request", request_type())
        .with("namespaceObject", namespace_type());
    if options.params {
        environment = environment.with("params", Type::DYN);
    }
    if options.authorizer {
        environment = environment
            .with("authorizer", Subject::authorizer_type())
            .with("authorizer.requestResource", Subject::resource_type());
    }
    environment
}

/// `admission.k8s.io/v1 AdmissionRequest` without its objects.
fn request_type() -> Type {
    let group = |version: &'static str, last: &'static str| {
        Type::object("kubernetes.GroupVersion", [("group", Type::TEXT), ("version", Type::TEXT), (last, Type::TEXT)])
            .named(version)
    };
    let kind = || group("kubernetes.GroupVersionKind", "kind");
    let resource = || group("kubernetes.GroupVersionResource", "resource");
    let user = Type::object(
        "kubernetes.UserInfo",
        [
            ("username", Type::TEXT),
            ("uid", Type::TEXT),
            ("groups", Type::list(Type::TEXT)),
            ("extra", Type::map(Type::list(Type::TEXT))),
        ],
    );
    Type::object(
        "kubernetes.AdmissionRequest",
        [
            ("kind", kind()),
            ("resource", resource()),
            ("subResource", Type::TEXT),
            ("requestKind", kind()),
            ("requestResource", resource()),
            ("requestSubResource", Type::TEXT),
            ("name", Type::TEXT),
            ("namespace", Type::TEXT),
            ("operation", Type::TEXT),
            ("userInfo", user),
            ("dryRun", Type::Bool),
            ("options", Type::DYN),
        ],
    )
}

/// What of a namespace expressions see.
fn namespace_type() -> Type {
    let texts = || Type::map(Type::TEXT);
    let metadata = Type::object(
        "kubernetes.NamespaceMetadata",
        [
            ("name", Type::TEXT),
            ("generateName", Type::TEXT),
            ("namespace", Type::TEXT),
            ("labels", texts()),
            ("annotations", texts()),
            ("UID", Type::TEXT),
            ("creationTimestamp", Type::Timestamp),
            ("deletionGracePeriodSeconds", Type::Int),
            ("deletionTimestamp", Type::Timestamp),
            ("resourceVersion", Type::TEXT),
            ("finalizers", Type::list(Type::TEXT)),
        ],
    );
    let spec = Type::object("kubernetes.NamespaceSpec", [("finalizers", Type::list(Type::TEXT))]);
    let status = Type::object("kubernetes.NamespaceStatus", [("phase", Type::TEXT)]);
    Type::object("kubernetes.Namespace", [("metadata", metadata), ("spec", spec), ("status", status)])
}

/// What one request gives to admission expressions.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// The object, `None` on delete.
    pub object: Option<&'a Value>,
    /// The object as it is stored, `None` on create.
    pub old_object: Option<&'a Value>,
    /// The `AdmissionRequest`.
    pub request: &'a Value,
    /// The namespace of the request, `None` where it has none.
    pub namespace_object: Option<&'a Value>,
    /// The parameters of a policy.
    pub params: Option<&'a Value>,
    /// Who answers `authorizer`.
    pub authorizer: Option<&'a dyn Authorize>,
}

impl<'a> Scope<'a> for Input<'a> {
    fn variable(&self, name: &str) -> Option<Result<Val<'a>, Failure>> {
        let value = |value: Option<&'a Value>, of: &Type| value.map_or(Val::Null, |value| Val::of(value, of));
        Some(Ok(match name {
            "object" => value(self.object, &Type::DYN),
            "oldObject" => value(self.old_object, &Type::DYN),
            "request" => Val::of(self.request, &request_type()),
            "namespaceObject" => value(self.namespace_object, &namespace_type()),
            "params" => value(self.params, &Type::DYN),
            "authorizer" => Val::Authorizer(Subject::new(self.authorizer?).into()),
            _ => return None,
        }))
    }

    fn field(&self, variable: &str, field: &str) -> Option<Result<Val<'a>, Failure>> {
        match (variable, field) {
            ("authorizer", "requestResource") => {
                let check = self.request_check();
                Some(Ok(Val::Authorizer(Subject::of_request(self.authorizer?, check).into())))
            }
            _ => None,
        }
    }
}

impl Input<'_> {
    fn request_check(&self) -> Check {
        let text = |pointer: &str| self.request.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        Check {
            group: text("/requestResource/group"),
            resource: text("/requestResource/resource"),
            subresource: text("/requestSubResource"),
            namespace: text("/namespace"),
            name: text("/name"),
            ..Check::default()
        }
    }
}

/// Compiled match conditions (`admissionregistration.k8s.io/v1 MatchCondition`).
#[derive(Debug, Default)]
pub struct Conditions(Vec<Expression>);

impl Conditions {
    /// Compiles a list as objects carry it. One that does not compile fails each time it is asked.
    pub fn compile(list: &[Value], options: Options) -> Self {
        let environment = environment(options);
        let text = |item: &Value| item.get("expression").and_then(Value::as_str).unwrap_or_default().to_owned();
        let made = list.iter().map(|item| Expression::compile(&text(item), &environment, &[Type::Bool]));
        Self(made.collect())
    }

    /// Whether there is nothing to ask.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a request meets all of them. One that is false decides; otherwise errors come back, one text each, and
    /// the failure policy says what they mean.
    pub fn matches(&self, input: &Input<'_>) -> Result<bool, Vec<String>> {
        let mut errors = Vec::new();
        let mut left = MATCH_BUDGET;
        for expression in &self.0 {
            let program = match &expression.program {
                Ok(program) => program,
                Err(error) => {
                    errors.push(format!("compilation error: {error}"));
                    continue;
                }
            };
            let (result, cost) = program.evaluate(input);
            if cost > left {
                return Err(vec![OUT_OF_BUDGET.into()]);
            }
            left -= cost;
            match result {
                Ok(value) if value.is_true() => {}
                Ok(_) => return Ok(false),
                Err(failure) => {
                    errors.push(format!("expression '{}' resulted in error: {failure}", expression.text));
                }
            }
        }
        if errors.is_empty() { Ok(true) } else { Err(errors) }
    }
}

#[cfg(test)]
impl<'a> Input<'a> {
    /// An object and its request, and nothing else.
    pub(super) fn of(object: &'a Value, request: &'a Value) -> Self {
        let nothing = None;
        Self {
            object: Some(object),
            old_object: nothing,
            request,
            namespace_object: nothing,
            params: nothing,
            authorizer: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Conditions, Input, Options};
    use serde_json::json;

    #[test]
    fn conditions_decide_before_errors_do() {
        let object = json!({"metadata": {"name": "a", "labels": {"x": "y"}}});
        let request = json!({"operation": "CREATE", "userInfo": {"username": "me"}, "dryRun": false});
        let input = Input::of(&object, &request);
        let conditions = |expressions: &[&str]| {
            let list: Vec<_> = expressions.iter().map(|e| json!({"name": "c", "expression": e})).collect();
            Conditions::compile(&list, Options::default()).matches(&input)
        };
        assert_eq!(conditions(&[]), Ok(true));
        assert_eq!(
            conditions(&["object.metadata.name == 'a' && oldObject == null", "namespaceObject == null"]),
            Ok(true)
        );
        assert_eq!(conditions(&["object.spec.x == 1", "request.operation != 'CREATE'"]), Ok(false));
        assert_eq!(
            conditions(&["object.spec.x == 1", "true"]),
            Err(vec!["expression 'object.spec.x == 1' resulted in error: no such key: spec".into()])
        );
        assert_eq!(conditions(&["request.userInfo.username == 'me' && !request.dryRun"]), Ok(true));
    }
}
