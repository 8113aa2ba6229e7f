//! What refers to an image: listed, brought along, sent along, found again in archives; and lists that lie.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use runtime_image::{Auth, Error, Platform, PushOptions, Referrer, Store};
use serde_json::{Value, json};

use crate::registry::{Answer, Registry, Seen};
use crate::sample::{INDEX, MANIFEST, Sample, options, pull, pull_all, residue, wait};
use crate::support::digest;

const SPDX: &str = "application/spdx+json";
const SIGNATURE: &str = "application/vnd.example.signature.v1";

/// A manifest or index that refers to another, and the blobs that it names.
struct Artifact {
    kind: &'static str,
    document: Vec<u8>,
    blobs: Vec<Vec<u8>>,
}

fn describe(kind: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": kind, "digest": digest(bytes), "size": bytes.len()})
}

impl Artifact {
    fn new(artifact_type: &str, subject: &[u8], text: &str) -> Self {
        let blobs = vec![b"{}".to_vec(), text.as_bytes().to_vec()];
        let document = json!({"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": artifact_type,
            "config": describe("application/vnd.oci.empty.v1+json", &blobs[0]),
            "layers": [describe("text/plain", &blobs[1])],
            "subject": describe(MANIFEST, subject), "annotations": {"text": text}});
        Self { kind: MANIFEST, document: document.to_string().into_bytes(), blobs }
    }

    /// An index of others.
    fn index(subject: &[u8], of: &[&Self]) -> Self {
        let of: Vec<_> = of.iter().map(|one| describe(one.kind, &one.document)).collect();
        let document = json!({"schemaVersion": 2, "mediaType": INDEX, "artifactType": "application/vnd.example.many",
            "manifests": of, "subject": describe(MANIFEST, subject)});
        Self { kind: INDEX, document: document.to_string().into_bytes(), blobs: Vec::new() }
    }

    fn digest(&self) -> String {
        digest(&self.document)
    }

    fn serve(&self, registry: &Registry) {
        let mut content = registry.content.lock().unwrap();
        let document = (self.kind.to_owned(), Bytes::copy_from_slice(&self.document));
        content.manifests.insert(("team/app".to_owned(), self.digest()), document);
        for blob in &self.blobs {
            content.blobs.insert(("team/app".to_owned(), digest(blob)), Bytes::copy_from_slice(blob));
        }
    }
}

/// What refers to the sample: a list of contents and its signature, a signature of the index, and an index of two.
fn everything() -> Vec<Artifact> {
    let sample = Sample::two();
    let contents = Artifact::new(SPDX, &sample.manifest, "contents");
    let signed = Artifact::new(SIGNATURE, &contents.document, "signature of the contents");
    let index_signed = Artifact::new(SIGNATURE, &sample.index, "signature of the index");
    let parts = ["one", "two"].map(|text| Artifact::new(SIGNATURE, b"what is nowhere", text));
    let many = Artifact::index(&sample.manifest, &[&parts[0], &parts[1]]);
    let [one, two] = parts;
    vec![contents, signed, index_signed, one, two, many]
}

fn serve_everything(registry: &Registry) {
    Sample::two().serve(registry);
    everything().iter().for_each(|artifact| artifact.serve(registry));
}

/// What a registry lists for a name, as digests, in order.
fn listed(registry: &Registry, name: &str, platform: Option<&str>, kind: Option<&str>) -> Result<Vec<String>, Error> {
    let platform = platform.map(|text| Platform::parse(text).unwrap());
    let registries = options(&[&registry.address]).registries;
    let name = format!("{}/{name}", registry.address);
    let found = wait(runtime_image::referrers(&name, platform.as_ref(), kind, &Auth::Anonymous, &registries))?;
    let mut all: Vec<String> = found.into_iter().map(|one| one.digest).collect();
    all.sort();
    Ok(all)
}

fn digests(artifacts: &[Artifact], which: &[usize]) -> Vec<String> {
    let mut all: Vec<String> = which.iter().map(|at| artifacts[*at].digest()).collect();
    all.sort();
    all
}

fn machine() -> &'static str {
    if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" }
}

#[test]
fn a_registry_lists_what_refers_to_an_image() {
    let registry = Registry::honest();
    serve_everything(&registry);
    let all = everything();
    assert_eq!(listed(&registry, "team/app:1", None, None).unwrap(), digests(&all, &[2]));
    assert_eq!(listed(&registry, "team/app:1", Some(machine()), None).unwrap(), digests(&all, &[0, 5]));
    assert_eq!(listed(&registry, "team/app:1", Some(machine()), Some(SPDX)).unwrap(), digests(&all, &[0]));
    assert_eq!(registry.asked("GET", "/referrers/").last().unwrap().query, "artifactType=application%2Fspdx%2Bjson");
    let of_contents = format!("team/app@{}", all[0].digest());
    assert_eq!(listed(&registry, &of_contents, None, None).unwrap(), digests(&all, &[1]));
    let of_signature = format!("team/app@{}", all[1].digest());
    assert_eq!(listed(&registry, &of_signature, None, None).unwrap(), Vec::<String>::new());
    let error = listed(&registry, "team/app:2", None, None).unwrap_err();
    assert!(matches!(error, Error::NotFound(_)), "{error}");
    // All that is said of one.
    let registries = options(&[&registry.address]).registries;
    let name = format!("{}/{of_contents}", registry.address);
    let found = wait(runtime_image::referrers(&name, None, None, &Auth::Anonymous, &registries)).unwrap();
    let wanted = Referrer {
        digest: all[1].digest(),
        media_type: MANIFEST.to_owned(),
        artifact_type: SIGNATURE.to_owned(),
        size_bytes: all[1].document.len() as u64,
        annotations: [("text".to_owned(), "signature of the contents".to_owned())].into(),
        subject: all[0].digest(),
    };
    assert_eq!(found, [wanted]);
}

#[test]
fn a_registry_that_does_not_choose_by_type_is_chosen_from() {
    let registry = Registry::lying(|seen, answer| match seen.query.is_empty() {
        true => answer,
        false => Answer::new(200, list(&everything()[..3])).with("content-type", INDEX),
    });
    serve_everything(&registry);
    let found = listed(&registry, "team/app:1", None, Some(SPDX)).unwrap();
    assert_eq!(found, digests(&everything(), &[0]));
}

#[test]
fn a_list_may_come_in_pages() {
    let registry = Registry::lying(|seen, answer| {
        let page = |at: usize| Answer::new(200, list(&everything()[at..=at])).with("content-type", INDEX);
        match (seen.path.contains("/referrers/"), seen.query.as_str()) {
            (false, _) => answer,
            (true, "") => page(0).with("link", &format!("</other>; rel=\"prev\", <{}?n=1>; rel=\"next\"", seen.path)),
            (true, "n=1") => page(1).with("link", "<?n=2>;rel=next"),
            (true, _) => page(2),
        }
    });
    serve_everything(&registry);
    assert_eq!(listed(&registry, "team/app:1", None, None).unwrap(), digests(&everything(), &[0, 1, 2]));
}

/// A list of descriptors, as whoever keeps it himself has it.
fn list(artifacts: &[Artifact]) -> String {
    let row = |one: &Artifact| {
        let mut row = describe(one.kind, &one.document);
        let document: Value = serde_json::from_slice(&one.document).unwrap();
        row["artifactType"] = document["artifactType"].clone();
        row
    };
    let all: Vec<_> = artifacts.iter().map(row).collect();
    json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": all}).to_string()
}

#[test]
fn where_a_registry_keeps_no_list_a_tag_does() {
    let registry = Registry::without_referrers();
    serve_everything(&registry);
    assert_eq!(listed(&registry, "team/app:1", None, None).unwrap(), Vec::<String>::new());
    let tag = digest(&Sample::two().index).replace(':', "-");
    let tagged = |kind: &str, text: String| {
        let name = ("team/app".to_owned(), tag.clone());
        registry.content.lock().unwrap().manifests.insert(name, (kind.to_owned(), text.into()));
    };
    tagged(INDEX, list(&everything()[..3]));
    assert_eq!(listed(&registry, "team/app:1", None, None).unwrap(), digests(&everything(), &[0, 1, 2]));
    assert_eq!(listed(&registry, "team/app:1", None, Some(SPDX)).unwrap(), digests(&everything(), &[0]));
    // Somebody's own tag that is called so lists nothing.
    tagged(MANIFEST, String::from_utf8(Sample::two().manifest).unwrap());
    assert_eq!(listed(&registry, "team/app:1", None, None).unwrap(), Vec::<String>::new());
}

#[test]
fn what_refers_to_an_image_comes_with_it_when_it_is_asked_for() {
    let registry = Registry::honest();
    serve_everything(&registry);
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let image = pull(&store, &registry, |_| {}).unwrap();
    assert_eq!(registry.asked("GET", "/referrers/").len(), 0);
    assert_eq!(store.details(&image.id).unwrap().unwrap().referrers, []);
    let before = residue(dir.path()).len();
    assert_eq!(pull_all(&store, &registry).unwrap(), image);
    // Six documents, their texts, and the configuration that all of them share.
    assert_eq!(residue(dir.path()).len(), before + 6 + 5 + 1);
    let mut found: Vec<String> =
        store.details(&image.id).unwrap().unwrap().referrers.into_iter().map(|one| one.digest).collect();
    found.sort();
    assert_eq!(found, digests(&everything(), &[0, 1, 2, 3, 4, 5]));
    // It stays with the image, is verified with it, and goes with it.
    pull(&store, &registry, |_| {}).unwrap();
    store.collect(&[]).unwrap();
    assert_eq!(residue(dir.path()).len(), before + 12);
    assert_eq!(store.verify(&image.id).unwrap(), Vec::<String>::new());
    let text = dir.path().join("blobs/sha256").join(digest(b"contents").replace("sha256:", ""));
    fs::write(text, "another").unwrap();
    assert!(store.verify(&image.id).unwrap()[0].contains(&digest(b"contents")));
    store.remove(&image.id).unwrap();
    store.collect(&[]).unwrap();
    assert_eq!(residue(dir.path()), Vec::<String>::new());
}

/// A store that has the sample and everything that refers to it.
fn stored() -> (tempfile::TempDir, Store, String) {
    let registry = Registry::honest();
    serve_everything(&registry);
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("images")).unwrap();
    let name = pull_all(&store, &registry).unwrap().names.remove(0);
    (dir, store, name)
}

fn push(store: &Store, image: &str, registry: &Registry, referrers: bool) {
    let options = PushOptions { registries: options(&[&registry.address]).registries, referrers };
    let target = format!("{}/team/app:1", registry.address);
    wait(store.push(image, &target, &Auth::Anonymous, &options, |_| {})).unwrap();
}

#[test]
fn what_refers_to_an_image_is_sent_with_it_when_it_is_asked_for() {
    let (_dir, store, name) = stored();
    let all = everything();
    for to in [Registry::honest(), Registry::without_referrers()] {
        push(&store, &name, &to, false);
        assert_eq!(listed(&to, "team/app:1", None, None).unwrap(), Vec::<String>::new());
        push(&store, &name, &to, true);
        push(&store, &name, &to, true);
        assert_eq!(listed(&to, "team/app:1", None, None).unwrap(), digests(&all, &[0, 5]));
        assert_eq!(listed(&to, "team/app:1", None, Some(SPDX)).unwrap(), digests(&all, &[0]));
        let of_contents = format!("team/app@{}", all[0].digest());
        assert_eq!(listed(&to, &of_contents, None, None).unwrap(), digests(&all, &[1]));
        // Nobody finds the image before what refers to it is there.
        let puts = to.asked("PUT", "/manifests/");
        assert!(puts.last().unwrap().path.ends_with("/manifests/1"), "{puts:?}");
        let second = tempfile::tempdir().unwrap();
        let second = Store::open(second.path()).unwrap();
        let image = pull_all(&second, &to).unwrap();
        assert_eq!(second.verify(&image.id).unwrap(), Vec::<String>::new());
        assert_eq!(second.details(&image.id).unwrap().unwrap().referrers.len(), 5, "all but that of the index");
    }
}

#[test]
fn a_list_under_a_tag_keeps_what_others_wrote() {
    let (_dir, store, name) = stored();
    let to = Registry::without_referrers();
    let tag = digest(&Sample::two().manifest).replace(':', "-");
    let others = json!({"schemaVersion": 2, "mediaType": INDEX, "annotations": {"by": "another"},
        "manifests": [{"mediaType": MANIFEST, "digest": digest(b"x"), "size": 1, "data": "eA==", "platform": {"os": "x"}}]});
    let key = ("team/app".to_owned(), tag);
    to.content.lock().unwrap().manifests.insert(key.clone(), (INDEX.to_owned(), others.to_string().into()));
    push(&store, &name, &to, true);
    let (_, now) = to.content.lock().unwrap().manifests[&key].clone();
    let now: Value = serde_json::from_slice(&now).unwrap();
    assert_eq!(now["annotations"], others["annotations"]);
    assert_eq!(now["manifests"][0], others["manifests"][0]);
    assert_eq!(now["manifests"].as_array().unwrap().len(), 3);
    let contents = now["manifests"].as_array().unwrap().iter().find(|one| one["artifactType"] == SPDX).unwrap();
    assert_eq!(contents["annotations"], json!({"text": "contents"}));
}

#[test]
fn what_refers_to_an_image_is_found_again_in_an_export() {
    let (dir, store, name) = stored();
    let (tar, layout) = (dir.path().join("out.tar"), dir.path().join("layout"));
    let names = [name.clone(), store.tag(&name, "example.org/second:2").unwrap()];
    store.export_file(&names, true, &tar).unwrap();
    store.export_layout(&names, true, &layout).unwrap();
    let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    let rows = index["manifests"].as_array().unwrap();
    let kinds = rows.iter().filter_map(|row| row["artifactType"].as_str()).collect::<Vec<_>>();
    assert_eq!((rows.len(), kinds.len()), (8, 6), "each once: {rows:?}");
    for archive in [&tar, &layout] {
        let other = tempfile::tempdir().unwrap();
        let other = Store::open(other.path()).unwrap();
        other.import(archive, None).unwrap();
        assert_eq!(other.details(&name).unwrap().unwrap().referrers, store.details(&name).unwrap().unwrap().referrers);
        other.collect(&[]).unwrap();
        assert_eq!(other.verify(&name).unwrap(), Vec::<String>::new());
    }
    store.export_layout(std::slice::from_ref(&name), false, &dir.path().join("alone")).unwrap();
    let alone = fs::read_dir(dir.path().join("alone/blobs/sha256")).unwrap().count();
    assert_eq!(alone, 4);
}

/// An OCI layout of these, listed without names but for the image's.
fn layout(dir: &Path, images: &[(&Sample, &str)], artifacts: &[&Artifact]) {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8]| fs::write(blobs.join(digest(bytes).replace("sha256:", "")), bytes).unwrap();
    let mut rows = Vec::new();
    for (image, name) in images {
        image.packed.iter().chain([&image.config, &image.manifest]).for_each(|bytes| put(bytes));
        let mut row = describe(MANIFEST, &image.manifest);
        row["annotations"] = json!({"io.containerd.image.name": name});
        rows.push(row);
    }
    for artifact in artifacts {
        artifact.blobs.iter().chain([&artifact.document]).for_each(|bytes| put(bytes));
        rows.push(describe(artifact.kind, &artifact.document));
    }
    fs::write(dir.join("index.json"), json!({"schemaVersion": 2, "manifests": rows}).to_string()).unwrap();
}

#[test]
fn each_image_of_an_archive_gets_what_refers_to_it() {
    let (first, second) = (Sample::two(), Sample::of(&[crate::support::layer(&[])], vec![crate::support::layer(&[])]));
    let of_first = Artifact::new(SPDX, &first.manifest, "of the first");
    let of_that = Artifact::new(SIGNATURE, &of_first.document, "of that");
    let of_second = Artifact::new(SPDX, &second.manifest, "of the second");
    let of_none = Artifact::new(SPDX, b"what is nowhere", "of none");
    let dir = tempfile::tempdir().unwrap();
    let images = [(&first, "example.org/first:1"), (&second, "example.org/second:1")];
    layout(&dir.path().join("layout"), &images, &[&of_that, &of_none, &of_first, &of_second]);
    let store = Store::open(&dir.path().join("images")).unwrap();
    store.import(&dir.path().join("layout"), None).unwrap();
    for (name, wanted) in [
        ("example.org/first:1", vec![&of_first, &of_that, &of_none]),
        ("example.org/second:1", vec![&of_second, &of_none]),
    ] {
        let mut found: Vec<_> = store.details(name).unwrap().unwrap().referrers.into_iter().map(|r| r.digest).collect();
        let mut wanted: Vec<_> = wanted.into_iter().map(Artifact::digest).collect();
        found.sort();
        wanted.sort();
        assert_eq!(found, wanted, "{name}");
    }
}

#[test]
fn an_archive_that_lies_about_what_refers_to_an_image_leaves_nothing() {
    let sample = Sample::two();
    let contents = || Artifact::new(SPDX, &sample.manifest, "contents");
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("images");
    let store = Store::open(&root).unwrap();
    let damage = |text: &str, bytes: Option<&str>| {
        let path = dir.path().join("layout");
        let _ = fs::remove_dir_all(&path);
        layout(&path, &[(&sample, "example.org/app:1")], &[&contents()]);
        let blob = path.join("blobs/sha256").join(digest(text.as_bytes()).replace("sha256:", ""));
        match bytes {
            Some(bytes) => fs::write(blob, bytes).unwrap(),
            None => fs::remove_file(blob).unwrap(),
        }
        let error = store.import(&path, None).unwrap_err().to_string();
        assert_eq!(residue(&root), Vec::<String>::new(), "{error}");
        error
    };
    let error = damage("contents", None);
    assert!(error.contains(&format!("{}: not in the archive", digest(b"contents"))), "{error}");
    let error = damage("contents", Some("short"));
    assert!(error.contains("5 bytes; what names it says 8"), "{error}");
    let error = damage("contents", Some("CONTENTS"));
    assert!(error.contains(&format!("{}: got", digest(b"contents"))), "{error}");
    let error = damage(std::str::from_utf8(&contents().document).unwrap(), Some("{}"));
    assert!(error.contains(&format!("{}: got", contents().digest())), "{error}");
    layout(&dir.path().join("alone"), &[], &[&contents()]);
    let error = store.import(&dir.path().join("alone"), None).unwrap_err().to_string();
    assert!(error.contains("nothing but what refers to other images"), "{error}");
    assert_eq!(residue(&root), Vec::<String>::new());
}

/// A lie about what refers to the sample, and a part of the error that it must end with.
type Row = (&'static str, fn(&Seen, Answer) -> Answer, &'static str);

fn of_list(seen: &Seen) -> bool {
    seen.path.contains("/referrers/")
}

const LIES: &[Row] = &[
    (
        "one that refers to something else",
        |seen, answer| if of_list(seen) { Answer::new(200, list(&everything()[1..2])) } else { answer },
        "it does not refer to sha256:",
    ),
    (
        "one that refers to nothing",
        |seen, answer| if of_list(seen) { Answer::new(200, image_as_referrer()) } else { answer },
        "it does not refer to sha256:",
    ),
    (
        "one that is not there",
        |seen, answer| if seen.path.ends_with(&everything()[0].digest()) { Answer::new(404, "") } else { answer },
        "not found",
    ),
    (
        "one of other bytes",
        |seen, answer| match seen.path.ends_with(&everything()[0].digest()) {
            true => Answer { body: everything()[1].document.clone().into(), ..answer },
            false => answer,
        },
        ": got sha256:",
    ),
    (
        "one of another size",
        |seen, answer| match of_list(seen) {
            true => Answer::new(200, list(&everything()[..1]).replace("\"size\":", "\"size\":1")),
            false => answer,
        },
        "its index says 1",
    ),
    (
        "a blob that is not there",
        |seen, answer| if seen.path.ends_with(&digest(b"contents")) { Answer::new(404, "") } else { answer },
        "not found",
    ),
    (
        "a page for people",
        |seen, answer| match of_list(seen) {
            true => Answer::new(200, "<html></html>").with("content-type", "text/html"),
            false => answer,
        },
        "an HTML page instead of a list of referrers",
    ),
    (
        "a manifest for a list",
        |seen, answer| if of_list(seen) { Answer::new(200, Sample::two().manifest) } else { answer },
        "a manifest, not an index",
    ),
    (
        "a list without end",
        |seen, answer| if of_list(seen) { answer.with("link", "<?more>; rel=\"next\"") } else { answer },
        "more than 1000",
    ),
    (
        "a list that goes on at a file",
        |seen, answer| if of_list(seen) { answer.with("link", "<file:///etc/passwd>; rel=next") } else { answer },
        "a redirect away from HTTPS",
    ),
    (
        "a list of places",
        |seen, answer| match of_list(seen) {
            true => Answer::new(200, r#"{"manifests":[{"digest":"../../etc/passwd"}]}"#),
            false => answer,
        },
        "manifests[0].digest: unsupported digest",
    ),
    ("no entry", |seen, answer| if of_list(seen) { Answer::new(403, "") } else { answer }, "authorization failed"),
];

fn image_as_referrer() -> String {
    json!({"schemaVersion": 2, "manifests": [describe(MANIFEST, &Sample::two().manifest)]}).to_string()
}

#[test]
fn lies_about_what_refers_to_an_image_leave_nothing() {
    for (name, lie, why) in LIES {
        let registry = Registry::lying(lie);
        serve_everything(&registry);
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let error = pull_all(&store, &registry).map(|image| panic!("{name}: {image:?}")).unwrap_err().to_string();
        assert!(error.contains(why) && !error.contains('\n') && error.len() < 500, "{name}: {error}");
        assert_eq!(residue(dir.path()), Vec::<String>::new(), "{name}: {error}");
        // The image alone can be had.
        pull(&store, &registry, |_| {}).unwrap();
    }
}

#[test]
fn a_mirror_without_what_refers_to_an_image_is_passed_over() {
    let (mirror, origin) = (Registry::honest(), Registry::honest());
    Sample::two().serve(&mirror);
    serve_everything(&origin);
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let mut options = options(&[&origin.address]);
    options.referrers = true;
    let mirrors = vec![format!("http://{}", mirror.address)];
    options.registries.hosts.insert(origin.address.clone(), runtime_image::Host { mirrors, ..Default::default() });
    let name = format!("{}/team/app:1", origin.address);
    let image = wait(store.pull(&name, &Auth::Anonymous, &options, |_| {})).unwrap();
    assert_eq!(store.details(&image.id).unwrap().unwrap().referrers.len(), 6);
    assert_eq!(origin.asked("GET", "/team/app/blobs/").len(), 6, "the image itself is the mirror's");
    // Where the registry itself is out of reach, what the mirror says is all there is to know.
    drop(origin);
    let second = tempfile::tempdir().unwrap();
    let second = Store::open(second.path()).unwrap();
    let image = wait(second.pull(&name, &Auth::Anonymous, &options, |_| {})).unwrap();
    assert_eq!(second.details(&image.id).unwrap().unwrap().referrers, []);
}
