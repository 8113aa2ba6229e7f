//! Registries that lie: one clear error that names the digest or the field, and nothing left behind.

use std::sync::Arc;

use bytes::Bytes;
use runtime_image::{Auth, Error, Image, Store};

use crate::registry::{Answer, Registry, Seen};
use crate::sample::{Sample, options, pull, residue, wait};
use crate::support::digest;

/// A lie and a part of the error that it must end with.
type Row = (&'static str, fn(&Seen, Answer) -> Answer, &'static str);

const HTML: &str = "<!doctype html><html><body>Sign in to the hotel's network</body></html>";

fn blob(seen: &Seen) -> bool {
    seen.path.contains("/blobs/")
}

fn manifest(seen: &Seen) -> bool {
    seen.path.contains("/manifests/")
}

fn html(answer: Answer) -> Answer {
    Answer { body: HTML.into(), ..answer }.with("content-type", "text/html; charset=utf-8")
}

/// Replaces text in the inner manifest or the index; the digests no longer matter, since it is by tag.
fn edit(answer: Answer, from: &str, to: &str) -> Answer {
    let text = String::from_utf8_lossy(&answer.body).replacen(from, to, 1);
    let digest = digest(text.as_bytes());
    Answer { body: text.into(), ..answer }.with("docker-content-digest", &digest)
}

/// The same at the last place, which speaks of the manifest for this machine.
fn edit_last(answer: Answer, from: &str, to: &str) -> Answer {
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let (before, after) = text.rsplit_once(from).unwrap();
    let whole = [before, to, after].concat();
    edit(Answer { body: whole.into(), ..answer }, "", "")
}

const LIES: &[Row] = &[
    ("a blob of other bytes", |s, a| if blob(s) { flip(a) } else { a }, "LAYER: got sha256:"),
    (
        "a manifest of other bytes",
        |s, a| if s.path.contains("sha256:") && manifest(s) { flip(a) } else { a },
        "MANIFEST: got sha256:",
    ),
    (
        "a digest in the header that is another's",
        |s, a| if s.path.ends_with("/1") { a.with("docker-content-digest", &digest(b"another")) } else { a },
        "OTHER: got INDEX",
    ),
    ("a blob with an end missing", |s, a| if blob(s) { shorter(a) } else { a }, "LAYER: the registry sends"),
    ("a blob with an end missing, unsaid", |s, a| if blob(s) { chunked(shorter(a)) } else { a }, "LAYER: ends after"),
    ("a blob with something after it", |s, a| if blob(s) { chunked(longer(a)) } else { a }, "LAYER: longer than"),
    (
        "an empty blob",
        |s, a| if blob(s) { Answer { body: Bytes::new(), ..a } } else { a },
        "LAYER: the registry sends 0 bytes",
    ),
    ("a page for a manifest", |s, a| if manifest(s) { html(a) } else { a }, "127.0.0.1 answers with an HTML page"),
    ("a page for a blob", |s, a| if blob(s) { html(a) } else { a }, "LAYER: the registry sends 71 bytes, an HTML page"),
    ("a page for a blob, unsaid", |s, a| if blob(s) { chunked(html(a)) } else { a }, "LAYER: "),
    ("a page for an error", |_, a| Answer { status: 403, ..html(a) }, "authorization failed"),
    ("a redirect in a circle", |s, a| if blob(s) { redirect(a, &s.path) } else { a }, "LAYER: more than 5 redirects"),
    (
        "a redirect to nowhere",
        |s, a| if blob(s) { Answer { status: 307, ..a } } else { a },
        "LAYER: a redirect to nowhere",
    ),
    (
        "a redirect to a file",
        |s, a| if blob(s) { redirect(a, "file:///etc/passwd") } else { a },
        "LAYER: a redirect away from HTTPS",
    ),
    (
        "a manifest without end",
        |s, a| if manifest(s) { Answer { body: vec![b' '; 5 << 20].into(), ..a } } else { a },
        "more than 4194304 bytes",
    ),
    ("a manifest that is no JSON", |s, a| if manifest(s) { edit(a, "{", "") } else { a }, "INVALID"),
    (
        "an index that is a manifest, too",
        |s, a| if s.path.ends_with("/1") { edit(a, "{", r#"{"layers":[],"#) } else { a },
        "both a manifest and an index",
    ),
    (
        "an index labelled as a manifest",
        |s, a| if s.path.ends_with("/1") { a.with("content-type", crate::sample::MANIFEST) } else { a },
        "Content-Type",
    ),
    (
        "a digest of an index that leads out",
        |s, a| if s.path.ends_with("/1") { edit(a, "sha256:", "../") } else { a },
        "manifests[0].digest: unsupported digest",
    ),
    (
        "a size in the index that is not",
        |s, a| if s.path.ends_with("/1") { edit_last(a, r#""size":"#, r#""size":1"#) } else { a },
        "MANIFEST: ",
    ),
    (
        "a size that is text",
        |s, a| if s.path.ends_with("/1") { edit(a, r#""size":5"#, r#""size":"5""#) } else { a },
        "manifests[0].size: must be a number",
    ),
    (
        "the first schema",
        |s, a| if s.path.ends_with("/1") { edit(a, r#""schemaVersion":2"#, r#""schemaVersion":1"#) } else { a },
        "schemaVersion: only 2",
    ),
];

fn flip(answer: Answer) -> Answer {
    let mut bytes = answer.body.to_vec();
    if let Some(last) = bytes.last_mut() {
        *last ^= 1;
    }
    let digest = digest(&bytes);
    Answer { body: bytes.into(), ..answer }.with("docker-content-digest", &digest)
}

fn shorter(answer: Answer) -> Answer {
    let body = answer.body.slice(..answer.body.len() - 1);
    Answer { body, ..answer }
}

fn longer(answer: Answer) -> Answer {
    Answer { body: [&answer.body[..], b"more"].concat().into(), ..answer }
}

/// Says nothing about the length.
fn chunked(answer: Answer) -> Answer {
    answer.with("transfer-encoding", "chunked")
}

fn redirect(answer: Answer, to: &str) -> Answer {
    Answer { status: 307, ..answer }.with("location", to)
}

/// Pulls from a registry; what is left afterwards must be nothing.
fn refused(name: &str, registry: &Registry) -> Error {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let error = pull(&store, registry, |_| {}).map(|image| panic!("{name}: {image:?}")).unwrap_err();
    assert_eq!(store.list().unwrap(), [], "{name}");
    assert_eq!(residue(dir.path()), Vec::<String>::new(), "{name}: {error}");
    error
}

#[test]
fn a_registry_that_lies_is_found_out_and_leaves_nothing() {
    let sample = Sample::two();
    for (name, lie, why) in LIES {
        let registry = Registry::lying(lie);
        sample.serve(&registry);
        let error = refused(name, &registry).to_string();
        let layers = [&sample.packed[0], &sample.packed[1], &sample.config].map(|bytes| digest(bytes));
        let mut told = error.clone();
        for (digest, word) in layers.iter().map(|digest| (digest.as_str(), "LAYER")).chain([
            (digest(&sample.manifest).as_str(), "MANIFEST"),
            (digest(&sample.index).as_str(), "INDEX"),
            (digest(b"another").as_str(), "OTHER"),
        ]) {
            told = told.replace(digest, word);
        }
        let invalid = *why == "INVALID" && (error.contains("expected") || error.contains("trailing"));
        assert!(invalid || told.contains(why), "{name}: {told:?} does not speak of {why:?}");
        assert!(!error.contains('\n') && error.len() < 500, "{name}: {error:?}");
    }
}

#[test]
fn layers_that_are_not_what_the_configuration_says_leave_nothing() {
    let layers = [crate::support::layer(&[("a", crate::support::FILE, "one")])];
    let packed = vec![crate::sample::gzip(&layers[0])];
    // The DiffID is of something else.
    let registry = Registry::honest();
    Sample::of(&packed, packed.clone()).serve(&registry);
    let error = refused("diff", &registry);
    assert!(matches!(&error, Error::Digest { digest: wanted, .. } if *wanted == digest(&packed[0])), "{error}");
    // There are more of them than layers.
    let registry = Registry::honest();
    Sample::of(&[layers[0].clone(), layers[0].clone()], packed.clone()).serve(&registry);
    let error = refused("count", &registry).to_string();
    assert!(error.contains("rootfs.diff_ids: 2 of them, and 1 layers"), "{error}");
    // A hostile layer.
    let hostile = [crate::support::layer(&[("../evil", crate::support::FILE, "x")])];
    let registry = Registry::honest();
    Sample::of(&hostile, hostile.to_vec()).serve(&registry);
    let error = refused("hostile", &registry).to_string();
    assert!(error.contains("leaves the root"), "{error}");
}

#[test]
fn what_unpacks_to_more_than_is_allowed_leaves_nothing() {
    // A thousand times as much as came.
    let layers = [crate::support::layer(&[("zeros", crate::support::FILE, &"0".repeat(4 << 20))])];
    let registry = Registry::honest();
    Sample::of(&layers, vec![crate::sample::gzip(&layers[0])]).serve(&registry);
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let name = format!("{}/team/app:1", registry.address);
    let mut options = options(&[&registry.address]);
    for (allowed, why) in [(1 << 20, "layer: more bytes than allowed"), (100, "bytes are too many")] {
        options.max_unpacked_bytes = allowed;
        let error = wait(store.pull(&name, &Auth::Anonymous, &options, |_| {})).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        assert_eq!(residue(dir.path()), Vec::<String>::new());
    }
}

#[test]
fn what_hard_links_bring_up_from_a_layer_below_counts() {
    use crate::support::{FILE, HARD, layer};
    let layers = [layer(&[("zeros", FILE, &"0".repeat(600_000))]), layer(&[("link", HARD, "zeros")])];
    let packed = layers.iter().map(|layer| crate::sample::gzip(layer)).collect();
    let registry = Registry::honest();
    Sample::of(&layers, packed).serve(&registry);
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let name = format!("{}/team/app:1", registry.address);
    let mut options = options(&[&registry.address]);
    options.max_unpacked_bytes = 1 << 20;
    let error = wait(store.pull(&name, &Auth::Anonymous, &options, |_| {})).unwrap_err().to_string();
    assert!(error.contains("zeros: more bytes than allowed"), "{error}");
    assert_eq!(residue(dir.path()), Vec::<String>::new());
    options.max_unpacked_bytes = 2 << 20;
    let image = wait(store.pull(&name, &Auth::Anonymous, &options, |_| {})).unwrap();
    assert_eq!(std::fs::metadata(image.layers[0].join("link")).unwrap().len(), 600_000);
}

#[test]
fn a_connection_that_always_breaks_ends_with_what_came_of_it() {
    // It breaks at once, so that nothing comes.
    let registry = Registry::lying(|s, a| if blob(s) { Answer { cut: Some(0), ..a } } else { a });
    Sample::two().serve(&registry);
    let error = refused("broken", &registry);
    assert!(matches!(error, Error::Transport(_)) && error.to_string().contains("sha256:"), "{error}");
}

#[test]
fn credentials_are_not_carried_to_another_host() {
    let sample = Sample::two();
    let elsewhere = Registry::honest();
    sample.serve(&elsewhere);
    let other = elsewhere.address.clone();
    let registry = Registry::lying(move |seen, answer| match seen.header("authorization") {
        None => Answer::new(401, "").with("www-authenticate", "Basic realm=\"x\""),
        Some(_) if blob(seen) => redirect(answer, &format!("http://stranger:password@{other}{}", seen.path)),
        Some(_) => answer,
    });
    sample.serve(&registry);
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let image = pull_as_me(&store, &registry).unwrap();
    assert_eq!(store.verify(&image.id).unwrap(), Vec::<String>::new());
    let asked = elsewhere.seen.lock().unwrap();
    assert_eq!(asked.len(), 3);
    for seen in asked.iter() {
        assert_eq!(seen.header("authorization"), None, "{seen:?}");
    }
    let own = registry.asked("GET", "/blobs/");
    assert!(own.iter().all(|seen| seen.header("authorization") == Some("Basic bWU6c2VjcmV0")), "{own:?}");
}

#[test]
fn a_host_that_is_redirected_to_cannot_ask_for_credentials() {
    let sample = Sample::two();
    let elsewhere = Registry::lying(|_, _| Answer::new(401, "").with("www-authenticate", "Basic realm=\"x\""));
    let other = Arc::new(elsewhere.address.clone());
    let registry = Registry::lying(move |seen, answer| match blob(seen) {
        true => redirect(answer, &format!("http://{other}{}", seen.path)),
        false => answer,
    });
    sample.serve(&registry);
    let dir = tempfile::tempdir().unwrap();
    let error = pull_as_me(&Store::open(dir.path()).unwrap(), &registry).unwrap_err();
    assert!(matches!(error, Error::Unauthorized(_)), "{error}");
    assert!(elsewhere.seen.lock().unwrap().iter().all(|seen| seen.header("authorization").is_none()));
}

fn pull_as_me(store: &Store, registry: &Registry) -> Result<Image, Error> {
    let me = Auth::Basic { username: "me".into(), password: "secret".into() };
    let name = format!("{}/team/app:1", registry.address);
    wait(store.pull(&name, &me, &options(&[&registry.address]), |_| {}))
}
