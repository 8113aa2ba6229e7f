//! Bootstrap tokens: secrets `bootstrap-token-<id>` in kube-system
//! (`plugin/pkg/auth/authenticator/token/bootstrap`).

use api::{Document, GroupResource, ObjectName, Timestamp, time};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::digest::{SHA256, digest};

use crate::attributes::User;
use crate::view::View;

const GROUP: &str = "system:bootstrappers";

/// The user of `<id>.<secret>`.
pub(super) fn user(token: &str, view: &dyn View, now: Timestamp) -> Option<User> {
    let (id, secret) = token.split_once('.')?;
    let letters = |t: &str, n| t.len() == n && t.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if !letters(id, 6) || !letters(secret, 16) {
        return None;
    }
    let name = ObjectName { namespace: "kube-system".into(), name: format!("bootstrap-token-{id}") };
    let stored = view.get(&GroupResource::new("", "secrets"), &name)?;
    let usable = stored.str_at("/type") == "bootstrap.kubernetes.io/token"
        && !stored.deleting()
        && equal(&datum(&stored, "token-secret"), secret)
        && datum(&stored, "token-id") == id
        && !expired(&datum(&stored, "expiration"), now)
        && datum(&stored, "usage-bootstrap-authentication") == "true";
    if !usable {
        return None;
    }
    let groups = groups(&datum(&stored, "auth-extra-groups"))?;
    Some(User { name: format!("system:bootstrap:{id}"), groups, ..User::default() })
}

fn datum(secret: &Document, key: &str) -> String {
    let text = secret.str_at(&format!("/data/{key}"));
    let bytes = BASE64_STANDARD.decode(text).unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_default()
}

/// By digests, so that the time it takes tells nothing.
fn equal(a: &str, b: &str) -> bool {
    digest(&SHA256, a.as_bytes()).as_ref() == digest(&SHA256, b.as_bytes()).as_ref()
}

/// A time that cannot be read counts as past.
fn expired(text: &str, now: Timestamp) -> bool {
    !text.is_empty() && time::parse(text).is_none_or(|at| at <= now)
}

/// The default group and the further ones; one that does not begin with the default group spoils the token.
fn groups(extra: &str) -> Option<Vec<String>> {
    let mut groups = vec![GROUP.to_owned()];
    for group in extra.split(',').filter(|group| !group.is_empty()) {
        let rest = group.strip_prefix(GROUP)?.strip_prefix(':')?;
        let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let fine = rest.bytes().all(|b| letter(b) || b == b':' || b == b'-') && rest.bytes().last().is_some_and(letter);
        if !fine || rest.len() > 256 {
            return None;
        }
        groups.push(group.to_owned());
    }
    Some(groups)
}

#[cfg(test)]
mod tests {
    use super::{expired, groups};

    #[test]
    fn further_groups_stay_below_the_default_one() {
        assert_eq!(groups("").unwrap(), ["system:bootstrappers"]);
        assert_eq!(groups("system:bootstrappers:a:b-c").unwrap().len(), 2);
        for bad in ["system:masters", "system:bootstrappers:", "system:bootstrappers:A", "system:bootstrappersx"] {
            assert!(groups(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_broken_time_is_past() {
        let now = "2024-01-01T00:00:00Z".parse().unwrap();
        assert!(!expired("", now) && !expired("2024-01-01T00:00:01Z", now));
        assert!(expired("2024-01-01T00:00:00Z", now) && expired("tomorrow", now));
    }
}
