//! Admission on the one path of every write.

use api::{Document, GroupVersionKind, StatusResult, Timestamp};

use super::machine::{Machine, Stepped};
use crate::admission::{Context, Plugin};
use crate::attributes::Attributes;
use crate::call::Call;
use crate::view::View;

struct Facts<'a> {
    attributes: &'a Attributes,
    kind: GroupVersionKind,
    view: &'a dyn View,
    now: Timestamp,
    dry_run: bool,
}

impl Facts<'_> {
    fn context<'b>(&'b self, old: Option<&'b Document>) -> Context<'b> {
        Context {
            attributes: self.attributes,
            kind: &self.kind,
            old,
            view: self.view,
            now: self.now,
            dry_run: self.dry_run,
        }
    }
}

impl<'a> Machine<'a> {
    fn facts(&self, attributes: &'a Attributes) -> Facts<'a> {
        let call = &self.request.call;
        let kind = call.subresource().map_or_else(|| call.row.kind_in(call.version()), |sub| sub.kind.clone());
        Facts { attributes, kind, view: self.snapshot.view(), now: self.now(), dry_run: self.request.dry_run() }
    }

    /// The attributes of the request, with the verb that it comes down to (a patch may create).
    pub(crate) fn attributes(&self, verb: &str, name: &str) -> Attributes {
        let mut attributes = self.request.call.attributes.clone();
        attributes.verb = verb.into();
        if let Some(target) = attributes.resource.as_mut() {
            target.object.name = name.into();
        }
        attributes
    }

    /// Lets the mutating plugins change the object; defaults and prunes after each that did.
    pub(crate) fn mutate(&self, verb: &str, object: &mut Document, old: Option<&Document>) -> Stepped<()> {
        let attributes = self.attributes(verb, object.name());
        for plugin in self.plugins {
            let before = object.clone();
            let facts = Facts { attributes: &attributes, ..self.facts(&self.request.call.attributes) };
            plugin.mutate(object, &facts.context(old))?;
            if *object != before {
                self.storage_schema().prune(object);
                self.default(object);
            }
        }
        Ok(())
    }

    /// Lets the validating plugins refuse.
    pub(crate) fn validate(&self, verb: &str, object: &Document, old: Option<&Document>) -> Stepped<()> {
        let name = if object.name().is_empty() { &self.object_name().name } else { object.name() };
        let attributes = self.attributes(verb, name);
        for plugin in self.plugins {
            let facts = Facts { attributes: &attributes, ..self.facts(&self.request.call.attributes) };
            plugin.validate(object, &facts.context(old))?;
        }
        Ok(())
    }
}

/// Admission of a create that answers instead of storing.
pub(crate) fn answered(
    plugins: &[&dyn Plugin],
    view: &dyn View,
    call: &Call,
    object: &mut Document,
    dry_run: bool,
) -> StatusResult<()> {
    let kind = call.subresource().map_or_else(|| call.row.kind_in(call.version()), |sub| sub.kind.clone());
    let facts = Facts { attributes: &call.attributes, kind, view, now: call.now, dry_run };
    for plugin in plugins {
        plugin.mutate(object, &facts.context(None))?;
    }
    plugins.iter().try_for_each(|plugin| plugin.validate(object, &facts.context(None)))
}

/// Admission of a connect.
pub(crate) fn connect(plugins: &[&dyn Plugin], view: &dyn View, call: &Call) -> StatusResult<()> {
    let kind = call.row.kind_in(call.version());
    let mut attributes = call.attributes.clone();
    attributes.verb = "connect".into();
    let facts = Facts { attributes: &attributes, kind, view, now: call.now, dry_run: false };
    let mut object = Document::default();
    for plugin in plugins {
        plugin.mutate(&mut object, &facts.context(None))?;
        plugin.validate(&object, &facts.context(None))?;
    }
    Ok(())
}
