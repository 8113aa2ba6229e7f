//! Groups of the community (`k8s.io`, `kubernetes.io`): a definition in one says who approved it
//! (`apihelpers.GetAPIApprovalState`).

use crate::Document;
use crate::cel::url::Url;
use crate::field::{Error, Errors, Path};

const ANNOTATION: &str = "api-approved.kubernetes.io";

/// What a definition's annotation says, with the words for it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Approval {
    Approved(String),
    Bypassed(String),
    Missing(String),
    Invalid(String),
}

impl Approval {
    /// Of a definition; `None` where its group is nobody's but its own.
    pub fn of(definition: &Document) -> Option<Self> {
        let group = definition.str_at("/spec/group");
        let protected = ["k8s.io", "kubernetes.io"]
            .iter()
            .any(|root| group.strip_suffix(root).is_some_and(|before| before.is_empty() || before.ends_with('.')));
        protected.then(|| Self::said(definition.str_at("/metadata/annotations/api-approved.kubernetes.io")))
    }

    fn said(annotation: &str) -> Self {
        let must = format!("protected groups must have approval annotation {ANNOTATION:?}");
        let see = "see https://github.com/kubernetes/enhancements/pull/1111";
        match annotation {
            "" => Self::Missing(format!("{must}, {see}")),
            why if why.starts_with("unapproved") => Self::Bypassed(format!("not approved: {why:?}")),
            place if Url::parse(place).is_ok_and(|url| !url.host.is_empty()) => {
                Self::Approved(format!("approved in {place}"))
            }
            _ => Self::Invalid(format!("{must} with either a URL or a reason starting with \"unapproved\", {see}")),
        }
    }
}

/// A new definition must say it rightly; one that said it wrongly before may stay so.
pub(super) fn validate(new: &Document, old: Option<&Document>) -> Errors {
    let Some(approval) = Approval::of(new) else { return Errors::new() };
    let before = old.and_then(Approval::of).map(|old| std::mem::discriminant(&old));
    if before == Some(std::mem::discriminant(&approval)) {
        return Errors::new();
    }
    let path = Path::new("metadata").child("annotations").key(ANNOTATION);
    let given = new.str_at("/metadata/annotations/api-approved.kubernetes.io");
    match approval {
        Approval::Approved(_) | Approval::Bypassed(_) => Errors::new(),
        Approval::Missing(why) => vec![Error::required(path, why)],
        Approval::Invalid(why) => vec![Error::invalid(path, given, why)],
    }
}
