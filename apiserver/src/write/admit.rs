//! Admission on the one path of every write: plugins, then webhooks, in upstream's order.

use std::cell::OnceCell;
use std::sync::Arc;

use api::{Document, GroupVersionKind, Schema};
use serde_json::{Map, Value, json};

use super::Verb;
use super::machine::{Machine, Stepped};
use super::options::{DeleteOptions, Propagation};
use super::policies;
use super::round::Round;
use super::webhooks;
use crate::admission::Context;
use crate::attributes::Attributes;
use crate::canonical::omit_empty;
use crate::hooks::{self, Invocation, Subject};

/// What is admitted, besides the objects.
pub(crate) struct Admission {
    /// `create`, `update`, `delete` or `connect`.
    pub verb: &'static str,
    /// The same for webhooks.
    pub subject: Subject,
    /// The options object of the request.
    pub options: Value,
    /// The schema of an object that is not of the row's own kind.
    pub schema: Option<Schema>,
}

impl Admission {
    /// Whether there is an object to change; a delete has none.
    pub(super) fn has_object(&self) -> bool {
        self.verb != "delete"
    }

    /// The new object, as webhooks see it.
    pub(super) fn object<'b>(&self, object: &'b Document) -> Option<&'b Document> {
        self.has_object().then_some(object)
    }
}

impl<'a> Machine<'a> {
    /// Of the object itself (or its status), with the verb that it comes down to: a patch may create.
    pub(crate) fn admission(&self, verb: &'static str, name: &str) -> Admission {
        let call = &self.request.call;
        let subject = self.subject(verb, name, call.row.kind_in(call.version()), call.row.storage.is_some());
        Admission { verb, subject, options: self.options(verb), schema: None }
    }

    /// Of an object of another kind that a subresource or a virtual resource takes.
    pub(crate) fn admission_of(&self, verb: &'static str, name: &str, kind: &GroupVersionKind) -> Admission {
        let schema = Schema::of_kind(&kind.group, &kind.version, &kind.kind);
        Admission { verb, subject: self.subject(verb, name, kind.clone(), false), options: self.options(verb), schema }
    }

    /// Whether webhooks and policies have a say: not in what the server does itself, nor in what would keep them from
    /// being mended.
    pub(super) fn may_be_refused(&self, admission: &Admission) -> bool {
        !self.request.internal && !hooks::is_exempt(&admission.subject.resource())
    }

    /// Objects in the form that a webhook or a policy wants; the error inside is upstream's text.
    pub(super) fn shown_to(
        &self,
        invocation: &Invocation,
        objects: [Option<&Document>; 2],
    ) -> Stepped<Result<[Option<Document>; 2], String>> {
        let mut shown = [None, None];
        for (shown, object) in shown.iter_mut().zip(objects) {
            let Some(object) = object.cloned() else { continue };
            *shown = match invocation.shown_in() {
                None => Some(object),
                Some((row, version)) => match self.converted(row, version, object)? {
                    Ok(converted) => Some(converted),
                    Err(why) => return Ok(Err(why)),
                },
            };
        }
        Ok(Ok(shown))
    }

    /// A changed object in such a form, pruned and defaulted, as the machine works on it. The error inside says why it
    /// cannot be read.
    pub(super) fn taken_from(
        &self,
        admission: &Admission,
        invocation: &Invocation,
        changed: Document,
    ) -> Stepped<Result<Document, String>> {
        let schema = match invocation.shown_in() {
            Some((_, version)) => Some(&version.schema),
            // Options of connects are not in the table.
            None => admission.schema.as_ref(),
        };
        let mut read = match schema.map(|schema| (schema, schema.read(changed.value().clone()))) {
            Some((_, Err(why))) => return Ok(Err(why)),
            Some((schema, Ok(read))) => {
                let mut read = read.document;
                omit_empty(schema, &mut read);
                schema.default(&mut read);
                read
            }
            None => changed,
        };
        match invocation.shown_in() {
            Some((row, _)) if row.custom => self.converted(row, self.version(), read),
            Some((row, version)) => {
                row.to_hub(version, &mut read);
                row.strategy.default(&mut read);
                Ok(Ok(read))
            }
            None => Ok(Ok(read)),
        }
    }

    fn subject(&self, verb: &str, name: &str, kind: GroupVersionKind, own: bool) -> Subject {
        let call = &self.request.call;
        let is_namespace = call.row.group.is_empty() && call.row.plural == "namespaces";
        Subject {
            operation: match verb {
                "create" => "CREATE",
                "update" => "UPDATE",
                "delete" => "DELETE",
                _ => "CONNECT",
            },
            row: Arc::clone(&call.row),
            version: call.version_index(),
            subresource: call.target.subresource.clone(),
            kind,
            own,
            name: if self.request.collection { String::new() } else { name.to_owned() },
            namespace: if is_namespace { name.to_owned() } else { self.object_name().namespace.clone() },
            others: OnceCell::new(),
        }
    }

    fn options(&self, verb: &str) -> Value {
        let kind = match verb {
            "create" => "CreateOptions",
            "update" => "UpdateOptions",
            "delete" => "DeleteOptions",
            _ => return Value::Null,
        };
        let mut options = Map::from_iter([
            ("kind".to_owned(), Value::from(kind)),
            ("apiVersion".to_owned(), Value::from("meta.k8s.io/v1")),
        ]);
        if self.request.dry_run() {
            options.insert("dryRun".into(), json!(["All"]));
        }
        match &self.request.verb {
            Verb::Delete(given) => options.extend(delete_options(given)),
            _ => {
                for key in ["fieldManager", "fieldValidation"] {
                    let given = self.request.call.query.get(key).filter(|text| !text.is_empty());
                    options.extend(given.map(|text| (key.to_owned(), Value::from(text))));
                }
            }
        }
        options.into()
    }

    /// The attributes of the request, with the verb that it comes down to (a patch may create).
    fn attributes(&self, verb: &str, name: &str) -> Attributes {
        let mut attributes = self.request.call.attributes.clone();
        attributes.verb = verb.into();
        if let Some(target) = attributes.resource.as_mut() {
            target.object.name = name.into();
        }
        attributes
    }

    /// Lets plugins, policies and webhooks change the object; defaults and prunes after each that did. Where a policy or
    /// a webhook changed something, all have another look.
    pub(crate) fn mutate(
        &mut self,
        admission: &Admission,
        object: &mut Document,
        old: Option<&Document>,
    ) -> Stepped<()> {
        let (mut by_policies, mut by_webhooks) = (Round::default(), Round::default());
        self.mutate_by_plugins(admission, object, old)?;
        policies::mutate(self, admission, object, old, &mut by_policies)?;
        webhooks::mutate(self, admission, object, old, &mut by_webhooks)?;
        if by_policies.changed || by_webhooks.changed {
            self.mutate_by_plugins(admission, object, old)?;
            by_policies.begin_second(object);
            policies::mutate(self, admission, object, old, &mut by_policies)?;
            by_webhooks.begin_second(object);
            webhooks::mutate(self, admission, object, old, &mut by_webhooks)?;
        }
        Ok(())
    }

    fn mutate_by_plugins(&self, admission: &Admission, object: &mut Document, old: Option<&Document>) -> Stepped<()> {
        let name = if object.name().is_empty() { &self.object_name().name } else { object.name() };
        let attributes = self.attributes(admission.verb, name);
        for plugin in self.plugins {
            let before = object.clone();
            plugin.mutate(object, &self.context(admission, &attributes, old))?;
            if *object != before {
                self.settle(admission, object);
            }
        }
        Ok(())
    }

    /// Defaults and prunes what was changed.
    fn settle(&self, admission: &Admission, object: &mut Document) {
        if admission.subject.own {
            self.storage_schema().prune(object);
            self.default(object);
        } else if let Some(schema) = &admission.schema {
            schema.prune(object);
            schema.default(object);
        }
    }

    fn context<'b>(
        &'b self,
        admission: &'b Admission,
        attributes: &'b Attributes,
        old: Option<&'b Document>,
    ) -> Context<'b> {
        Context {
            attributes,
            kind: &admission.subject.kind,
            old,
            view: self.snapshot.view(),
            now: self.now(),
            dry_run: self.request.dry_run(),
        }
    }

    /// Lets validating plugins and webhooks refuse.
    pub(crate) fn validate(&mut self, admission: &Admission, object: &Document, old: Option<&Document>) -> Stepped<()> {
        let name = if object.name().is_empty() { &self.object_name().name } else { object.name() };
        let attributes = self.attributes(admission.verb, name);
        for plugin in self.plugins {
            let context = self.context(admission, &attributes, old);
            let remarks = plugin.remarks(object, &context);
            let decided = plugin.validate(object, &context);
            self.annotations.extend(remarks.annotations);
            decided?;
            self.warnings.extend(remarks.warnings);
        }
        policies::validate(self, admission, object, old)?;
        webhooks::validate(self, admission, object, old)
    }

    /// Both, for what is admitted as it is.
    pub(crate) fn admit(
        &mut self,
        admission: &Admission,
        object: &mut Document,
        old: Option<&Document>,
    ) -> Stepped<()> {
        self.mutate(admission, object, old)?;
        self.validate(admission, object, old)
    }
}

fn delete_options(given: &DeleteOptions) -> Vec<(String, Value)> {
    let policy = given.propagation.map(|policy| match policy {
        Propagation::Foreground => "Foreground",
        Propagation::Background => "Background",
        Propagation::Orphan => "Orphan",
    });
    let pairs = [("uid", &given.uid), ("resourceVersion", &given.resource_version)].into_iter();
    let preconditions: Map<String, Value> =
        pairs.filter_map(|(key, text)| Some((key.to_owned(), text.clone()?.into()))).collect();
    let all = [
        ("gracePeriodSeconds", given.grace_seconds.map(Value::from)),
        ("propagationPolicy", policy.map(Value::from)),
        ("orphanDependents", given.orphan_dependents.map(Value::from)),
        ("preconditions", (!preconditions.is_empty()).then(|| preconditions.into())),
    ];
    all.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
}
