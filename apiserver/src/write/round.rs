//! The two rounds in which webhooks and policies change an object: those that want to are asked again when others changed
//! it after them (`k8s.io/apiserver/pkg/admission/reinvocation.go`).

use std::collections::BTreeSet;

use api::Document;

/// What is known of the webhooks, or of the policies, of one request. `K` tells them apart.
pub(super) struct Round<K> {
    /// Whether any of them changed the object.
    pub changed: bool,
    /// Whether any was asked since that was last looked at.
    pub asked_any: bool,
    second: bool,
    /// Those that were asked and want to be asked again should a later one change something.
    asked: BTreeSet<K>,
    /// Those that are to be asked again.
    again: BTreeSet<K>,
    /// The object as the last of them left it.
    left: Option<Document>,
}

impl<K> Default for Round<K> {
    fn default() -> Self {
        let (asked, again) = (BTreeSet::new(), BTreeSet::new());
        Self { changed: false, asked_any: false, second: false, asked, again, left: None }
    }
}

impl<K: Ord> Round<K> {
    /// The second and last round. Where the object is not as they left it, others changed it after them.
    pub(super) fn begin_second(&mut self, object: &Document) {
        self.second = true;
        if self.left.as_ref() != Some(object) {
            self.again.append(&mut self.asked);
        }
    }

    /// 0 or 1.
    pub(super) fn number(&self) -> u8 {
        u8::from(self.second)
    }

    /// Whether one has had its say: in the second round nobody is asked for the first time.
    pub(super) fn skips(&self, one: &K) -> bool {
        self.second && !self.again.contains(one)
    }

    /// One was asked.
    pub(super) fn note(&mut self, one: K, changed: bool, wants_again: bool) {
        self.asked_any = true;
        if changed {
            self.note_change();
        }
        if wants_again {
            self.asked.insert(one);
        }
    }

    /// All that were asked so far are to look again.
    pub(super) fn note_change(&mut self) {
        self.changed = true;
        self.again.append(&mut self.asked);
    }

    /// The last of a round has been asked.
    pub(super) fn end(&mut self, object: &Document) {
        self.left = Some(object.clone());
    }
}
