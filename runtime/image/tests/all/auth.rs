//! Who is let in: passwords, tokens, identities.

use runtime_image::{Auth, Error, Image, Store};

use crate::registry::{Answer, Registry, Seen};
use crate::sample::{Sample, options, wait};

fn me() -> Auth {
    Auth::Basic { username: "me".into(), password: "secret".into() }
}

fn pull(registry: &Registry, auth: &Auth) -> Result<Image, Error> {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let name = format!("{}/team/app:1", registry.address);
    wait(store.pull(&name, auth, &options(&[&registry.address]), |_| {}))
}

/// A registry that wants a token from `realm` (its own `/token` where that is empty); a token is good for `good`.
fn guarded(realm: &'static str) -> Registry {
    let registry = Registry::lying(move |seen, answer| {
        if seen.path == "/token" {
            return token(seen);
        }
        let realm = match realm {
            "" => format!("http://{}/token", seen.header("host").unwrap()),
            other => other.to_owned(),
        };
        match seen.header("authorization") {
            Some("Bearer good") => answer,
            _ => Answer::new(401, "").with(
                "www-authenticate",
                &format!("Bearer realm=\"{realm}\",service=\"it\",scope=\"repository:team/app:pull,push\""),
            ),
        }
    });
    Sample::two().serve(&registry);
    registry
}

fn token(seen: &Seen) -> Answer {
    let scoped =
        |text: &str| text.contains("service=it") && text.contains("scope=repository%3Ateam%2Fapp%3Apull%2Cpush");
    let form = String::from_utf8_lossy(&seen.body).into_owned();
    match (seen.method.as_str(), seen.header("authorization")) {
        ("GET", Some("Basic bWU6c2VjcmV0")) if scoped(&seen.query) => Answer::new(200, r#"{"token":"good"}"#),
        ("POST", None) if scoped(&form) && form.contains("grant_type=refresh_token") => {
            let known = form.contains("refresh_token=mine");
            Answer::new(if known { 200 } else { 401 }, r#"{"access_token":"good","expires_in":60}"#)
        }
        ("GET", None) => Answer::new(200, r#"{"token":"for nobody"}"#),
        _ => Answer::new(401, ""),
    }
}

#[test]
fn tokens_are_fetched_for_passwords_and_identities() {
    let registry = guarded("");
    pull(&registry, &me()).unwrap();
    // One token for all that follows: each of the three blobs needs no challenge of its own.
    assert_eq!(registry.asked("GET", "/token").len(), 1);
    pull(&registry, &Auth::Identity("mine".into())).unwrap();
    pull(&registry, &Auth::Bearer("good".into())).unwrap();
    assert_eq!((registry.asked("GET", "/token").len(), registry.asked("POST", "/token").len()), (1, 1));
}

#[test]
fn whoever_is_not_let_in_is_told_so() {
    let registry = guarded("");
    let wrong = Auth::Basic { username: "me".into(), password: "wrong".into() };
    for auth in [Auth::Anonymous, wrong, Auth::Identity("another's".into()), Auth::Bearer("bad".into())] {
        let error = pull(&registry, &auth).unwrap_err();
        let name = format!("{}/team/app:1", registry.address);
        assert_eq!(error.to_string(), format!("{name}: authorization failed"), "{auth:?}");
    }
}

#[test]
fn a_realm_that_is_none_is_refused() {
    for (realm, why) in
        [("nowhere", "realm \"nowhere\""), ("file:///etc/passwd", "is not HTTPS"), ("ftp://x/", "is not HTTPS")]
    {
        let error = pull(&guarded(realm), &me()).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn a_realm_that_answers_with_a_page_is_named() {
    let registry = Registry::lying(|seen, _| match seen.path.as_str() {
        "/token" => Answer::new(200, "<html>").with("content-type", "text/html"),
        _ => {
            let realm = format!("Bearer realm=\"http://{}/token\"", seen.header("host").unwrap());
            Answer::new(401, "").with("www-authenticate", &realm)
        }
    });
    let error = pull(&registry, &me()).unwrap_err().to_string();
    assert!(error.contains("/token: the answer holds none"), "{error}");
}

#[test]
fn credentials_are_not_shown() {
    for auth in [me(), Auth::Bearer("secret".into()), Auth::Identity("secret".into())] {
        assert!(!format!("{auth:?}").contains("secret"));
    }
}
