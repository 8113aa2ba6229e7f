//! Records Events: the same again counts up, many alike are combined, floods are cut
//! (`client-go/tools/record/events_cache.go`).

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http::Method;
use jiff::SignedDuration;
use reconcile::{Notice, ObjectName, Timestamp};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::request;

/// Events waiting to be written; more are dropped, as upstream drops them.
const WAITING: usize = 1_000;
/// Events being written at once: as many as a planner performs decisions, since each may bring one.
const UNDER_WAY: usize = 16;
/// Series remembered, the oldest forgotten first.
const SERIES: usize = 4_096;
/// Different messages of one kind within `ALIKE_WINDOW` after which they are combined.
const ALIKE: usize = 10;
const ALIKE_WINDOW: SignedDuration = SignedDuration::from_mins(10);
/// Events about one object: this many at once, then one each `REFILL`.
const BURST: f64 = 25.0;
const REFILL: SignedDuration = SignedDuration::from_mins(5);

/// Where deciders' Events go in.
#[derive(Clone)]
pub(crate) struct Recorder(mpsc::Sender<(&'static str, Notice, Timestamp)>);

/// Where they come out.
pub(crate) type Waiting = mpsc::Receiver<(&'static str, Notice, Timestamp)>;

/// A bounded channel of Events.
pub(crate) fn channel() -> (Recorder, Waiting) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (Recorder(sender), receiver)
}

impl Recorder {
    /// Records without waiting.
    pub(crate) fn record(&self, component: &'static str, notice: Notice) {
        if self.0.try_send((component, notice, Timestamp::now())).is_err() {
            tracing::debug!(component, "an Event was dropped: too many are waiting");
        }
    }
}

/// Writes Events until told to stop, then those still waiting.
pub(crate) async fn record(client: kube::Client, waiting: Waiting, stop: CancellationToken) {
    let client = &client;
    let put = |write: Write| async move {
        if let Err(failure) = put(client, &write).await {
            tracing::debug!(message = failure.message, "an Event could not be written");
        }
    };
    write_all(waiting, stop, put).await;
}

/// Several are written at once, those that count one Event up one after the other.
async fn write_all<F: Future<Output = ()>>(mut waiting: Waiting, stop: CancellationToken, put: impl Fn(Write) -> F) {
    let mut correlator = Correlator::default();
    let (mut under_way, mut names) = (FuturesUnordered::new(), HashSet::new());
    loop {
        let next = tokio::select! {
            biased;
            Some(name) = under_way.next() => {
                names.remove(&name);
                continue;
            }
            next = waiting.recv(), if under_way.len() < UNDER_WAY => next,
            () = stop.cancelled(), if under_way.len() < UNDER_WAY => waiting.try_recv().ok(),
        };
        let Some((component, notice, now)) = next else { break };
        let Some(write) = correlator.admit(component, notice, now) else { continue };
        while names.contains(&write.name)
            && let Some(name) = under_way.next().await
        {
            names.remove(&name);
        }
        let name = write.name.clone();
        names.insert(name.clone());
        let put = put(write);
        under_way.push(async move {
            put.await;
            name
        });
    }
    while under_way.next().await.is_some() {}
}

async fn put(client: &kube::Client, write: &Write) -> Result<(), reconcile::Failure> {
    let events = reconcile::Resource::of::<k8s_openapi::api::core::v1::Event>();
    if write.count > 1 {
        let path = request::object(&events, &write.name, "");
        let body = json!({"count": write.count, "lastTimestamp": seconds(write.last), "message": write.notice.message});
        let patch = request::send(Method::PATCH, &path, "application/strategic-merge-patch+json", &body)?;
        match client.request_text(patch).await.map_err(request::failure) {
            Err(failure) if failure.code == 404 => {}
            other => return other.map(drop),
        }
    }
    let path = request::collection(&events, &write.name.namespace);
    let post = request::send(Method::POST, &path, "application/json", &body(write))?;
    client.request_text(post).await.map(drop).map_err(request::failure)
}

fn body(write: &Write) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": {"name": write.name.name, "namespace": write.name.namespace},
        "involvedObject": write.notice.about,
        "reason": write.notice.reason, "message": write.notice.message,
        "type": if write.notice.warning { "Warning" } else { "Normal" },
        "source": {"component": write.component}, "reportingComponent": write.component, "reportingInstance": "",
        "firstTimestamp": seconds(write.first), "lastTimestamp": seconds(write.last), "count": write.count,
    })
}

fn seconds(at: Timestamp) -> Value {
    json!(reconcile::conditions::time(at))
}

/// One Event to write: a new one, or an old one that counts up.
#[derive(Debug)]
struct Write {
    component: &'static str,
    name: ObjectName,
    notice: Notice,
    count: u32,
    first: Timestamp,
    last: Timestamp,
}

struct Series {
    name: ObjectName,
    count: u32,
    first: Timestamp,
}

struct Alike {
    messages: BTreeSet<String>,
    last: Timestamp,
}

struct Bucket {
    tokens: f64,
    at: Timestamp,
}

/// Decides which Events are written, and how.
#[derive(Default)]
struct Correlator {
    series: HashMap<String, Series>,
    order: VecDeque<String>,
    alike: HashMap<String, Alike>,
    buckets: HashMap<String, Bucket>,
}

impl Correlator {
    /// What to write for an Event, if anything.
    fn admit(&mut self, component: &'static str, mut notice: Notice, now: Timestamp) -> Option<Write> {
        self.forget_some();
        let about = &notice.about;
        let object = format!("{component} {:?} {:?} {:?} {:?}", about.kind, about.namespace, about.name, about.uid);
        if !self.has_token(&object, now) {
            return None;
        }
        let kind = format!("{object} {} {}", notice.warning, notice.reason);
        let series = match self.combined(&kind, &notice.message, now) {
            true => {
                notice.message = format!("(combined from similar events): {}", notice.message);
                kind
            }
            false => format!("{kind} {} {:?}", notice.message, notice.about.field_path),
        };
        let order = &mut self.order;
        let entry = self.series.entry(series.clone()).or_insert_with(|| {
            order.push_back(series);
            Series { name: event_name(&notice, now), count: 0, first: now }
        });
        entry.count += 1;
        Some(Write { component, name: entry.name.clone(), count: entry.count, first: entry.first, last: now, notice })
    }

    fn combined(&mut self, kind: &str, message: &str, now: Timestamp) -> bool {
        let fresh = || Alike { messages: BTreeSet::new(), last: now };
        let alike = self.alike.entry(kind.into()).or_insert_with(fresh);
        if now.duration_since(alike.last) > ALIKE_WINDOW {
            *alike = fresh();
        }
        alike.last = now;
        if alike.messages.len() < ALIKE {
            alike.messages.insert(message.into());
        }
        alike.messages.len() >= ALIKE && !alike.messages.contains(message)
    }

    fn has_token(&mut self, object: &str, now: Timestamp) -> bool {
        let bucket = self.buckets.entry(object.into()).or_insert(Bucket { tokens: BURST, at: now });
        let refilled = now.duration_since(bucket.at).as_secs_f64() / REFILL.as_secs_f64();
        bucket.tokens = (bucket.tokens + refilled).min(BURST);
        bucket.at = now;
        let has = bucket.tokens >= 1.0;
        if has {
            bucket.tokens -= 1.0;
        }
        has
    }

    fn forget_some(&mut self) {
        while self.order.len() >= SERIES {
            if let Some(oldest) = self.order.pop_front() {
                self.series.remove(&oldest);
            }
        }
        if self.alike.len() >= SERIES {
            self.alike.clear();
        }
        if self.buckets.len() >= SERIES {
            self.buckets.retain(|_, b| b.tokens < BURST - 1.0);
        }
        if self.buckets.len() >= SERIES {
            self.buckets.clear();
        }
    }
}

fn event_name(notice: &Notice, now: Timestamp) -> ObjectName {
    let namespace = notice.about.namespace.clone().filter(|n| !n.is_empty()).unwrap_or_else(|| "default".into());
    let name = format!("{}.{:x}", notice.about.name.as_deref().unwrap_or_default(), now.as_nanosecond());
    ObjectName { namespace, name }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future::pending;
    use std::pin::pin;

    use jiff::SignedDuration;
    use k8s_openapi::api::core::v1::ObjectReference;
    use reconcile::{Notice, Timestamp};
    use tokio_util::sync::CancellationToken;

    use super::{Correlator, UNDER_WAY, channel, write_all};

    fn notice(message: &str) -> Notice {
        about("web", message)
    }

    fn about(name: &str, message: &str) -> Notice {
        let about = ObjectReference { name: Some(name.into()), namespace: Some("ns".into()), ..Default::default() };
        Notice { about, warning: false, reason: "SuccessfulCreate".into(), message: message.into() }
    }

    #[test]
    fn the_same_counts_up_many_alike_combine_and_floods_are_cut() {
        let mut correlator = Correlator::default();
        let now = Timestamp::UNIX_EPOCH;
        let mut say =
            |message: &str, at| correlator.admit("c", notice(message), at).map(|w| (w.count, w.notice.message));
        assert_eq!(say("a", now), Some((1, "a".into())));
        assert_eq!(say("a", now), Some((2, "a".into())));
        for i in 0..9 {
            assert_eq!(say(&format!("m{i}"), now), Some((1, format!("m{i}"))));
        }
        assert_eq!(say("m9", now), Some((1, "(combined from similar events): m9".into())));
        assert_eq!(say("m10", now), Some((2, "(combined from similar events): m10".into())));
        let rest: Vec<_> = (0..20).filter_map(|_| say("a", now)).collect();
        assert_eq!(rest.len(), 12, "25 at once");
        assert!(say("a", now + SignedDuration::from_mins(5)).is_some());
    }
    /// What is begun while no write ends.
    async fn begun(notices: Vec<Notice>) -> Vec<String> {
        let (recorder, waiting) = channel();
        notices.into_iter().for_each(|notice| recorder.record("c", notice));
        let begun = RefCell::new(Vec::new());
        let put = |write: super::Write| {
            begun.borrow_mut().push(write.notice.message);
            pending()
        };
        let all = write_all(waiting, CancellationToken::new(), put);
        assert!(futures::poll!(pin!(all)).is_pending());
        begun.into_inner()
    }

    #[tokio::test]
    async fn several_are_written_at_once_and_the_same_one_after_the_other() {
        let different = (0..2 * UNDER_WAY).map(|i| about(&format!("web-{i}"), "a")).collect();
        assert_eq!(begun(different).await.len(), UNDER_WAY);
        assert_eq!(begun(["a", "b", "a", "c"].map(notice).into()).await, ["a", "b"]);
    }
}
