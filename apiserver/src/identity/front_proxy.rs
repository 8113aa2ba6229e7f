//! Front proxies: who they are, whose requests they pass on, and what is told to servers behind this one
//! (`k8s.io/apiserver/pkg/authentication/request/headerrequest`).

use api::Document;
use http::HeaderMap;
use serde_json::{Value, json};

use crate::attributes::User;
use crate::identify::{extra, text_of};

/// The file and the name of the certificate that a front proxy shows.
pub(super) const CLIENT: &str = "front-proxy-client";
/// Who may speak for others.
pub(super) const NAMES: [&str; 1] = [CLIENT];

const USER: &str = "X-Remote-User";
const UID: &str = "X-Remote-Uid";
const GROUP: &str = "X-Remote-Group";
const EXTRA: &str = "X-Remote-Extra-";

/// Whom the headers name; `None` where they name nobody.
pub(crate) fn user(headers: &HeaderMap) -> Option<User> {
    let name = Some(text_of(headers, USER)).filter(|name| !name.is_empty())?;
    let groups = headers.get_all(GROUP).iter().filter_map(|group| Some(group.to_str().ok()?.to_owned()));
    let extra = extra(headers, &EXTRA.to_lowercase());
    Some(User { name, uid: text_of(headers, UID), groups: groups.collect(), extra })
}

/// Whom this server trusts, PEM.
#[derive(Clone, Debug)]
pub struct Trust {
    /// Who signs the certificates of users.
    pub client_ca: String,
    /// Who signs those of front proxies.
    pub front_proxy_ca: String,
}

impl Trust {
    /// `kube-system/extension-apiserver-authentication`, which servers behind this one configure themselves by
    /// (`pkg/controlplane/controller/clusterauthenticationtrust`).
    pub(crate) fn config_map(&self) -> Document {
        let list = |names: &[&str]| json!(names).to_string();
        let data = json!({
            "client-ca-file": self.client_ca,
            "requestheader-allowed-names": list(&NAMES),
            "requestheader-client-ca-file": self.front_proxy_ca,
            "requestheader-extra-headers-prefix": list(&[EXTRA]),
            "requestheader-group-headers": list(&[GROUP]),
            "requestheader-uid-headers": list(&[UID]),
            "requestheader-username-headers": list(&[USER]),
        });
        let metadata = json!({"name": CONFIG_MAP, "namespace": "kube-system"});
        Document::new(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}))
            .unwrap_or_default()
    }
}

/// The name of that ConfigMap.
pub(crate) const CONFIG_MAP: &str = "extension-apiserver-authentication";

/// What this server says together with what others wrote: several may trust each their own. Certificates that have ended
/// (by `now`, in seconds) are dropped.
pub(crate) fn combined(live: &Document, own: &Document, now: i64) -> Value {
    let texts = |document: &Document, key: &str| document.str_at(&format!("/data/{key}")).to_owned();
    let keys = own.at("/data").and_then(Value::as_object).into_iter().flatten().map(|(key, _)| key);
    let one = |key: &String| {
        let both = [texts(live, key), texts(own, key)];
        let value = if key.ends_with("-ca-file") { certificates(&both, now) } else { names(&both) };
        (key.clone(), Value::String(value))
    };
    Value::Object(keys.map(one).collect())
}

fn names(lists: &[String; 2]) -> String {
    let read = |list: &String| serde_json::from_str::<Vec<String>>(list).unwrap_or_default();
    let mut all: Vec<String> = Vec::new();
    for name in lists.iter().flat_map(read) {
        if !all.contains(&name) {
            all.push(name);
        }
    }
    json!(all).to_string()
}

/// How long a certificate is still passed on after its end, in seconds.
const SLACK: i64 = 300;

fn certificates(bundles: &[String; 2], now: i64) -> String {
    let end = "-----END CERTIFICATE-----";
    let blocks = bundles.iter().flat_map(|bundle| bundle.split_inclusive(end)).map(str::trim);
    let lasts = |block: &&str| client::validity(block).is_ok_and(|validity| validity.not_after > now - SLACK);
    let mut all: Vec<&str> = Vec::new();
    for block in blocks.filter(|block| block.ends_with(end)).filter(lasts) {
        if !all.contains(&block) {
            all.push(block);
        }
    }
    all.iter().map(|block| format!("{block}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::{Trust, combined, user};
    use api::Timestamp;
    use http::HeaderMap;
    use serde_json::json;

    use crate::identity::pki::{CLUSTER, FRONT_PROXY, Pki};

    #[test]
    fn headers_name_a_user_with_all_that_is_his() {
        let mut headers = HeaderMap::new();
        assert!(user(&headers).is_none());
        for (name, value) in [
            ("x-remote-user", "ann"),
            ("x-remote-uid", "7"),
            ("x-remote-group", "a"),
            ("x-remote-group", "b"),
            ("x-remote-extra-scopes%2fx", "s"),
        ] {
            headers.append(name, value.parse().unwrap());
        }
        let user = user(&headers).expect("a user");
        assert_eq!((user.name.as_str(), user.uid.as_str(), user.groups), ("ann", "7", vec!["a".into(), "b".into()]));
        assert_eq!(user.extra.get("scopes/x"), Some(&vec!["s".to_owned()]));
    }

    #[test]
    fn what_several_servers_trust_stands_together() {
        let now = Timestamp::now();
        let trust = || {
            let folder = tempfile::tempdir().unwrap();
            let ca = |of| Pki::open(folder.path(), of, now).unwrap().ca_pem().to_owned();
            Trust { client_ca: ca(CLUSTER), front_proxy_ca: ca(FRONT_PROXY) }
        };
        let (first, second) = (trust(), trust());
        let mut live = first.config_map();
        live.set("/data/requestheader-allowed-names", r#"["other"]"#);
        let both = combined(&live, &second.config_map(), now.as_second());
        assert_eq!(both["client-ca-file"], json!(format!("{}{}", first.client_ca, second.client_ca)));
        assert_eq!(both["requestheader-allowed-names"], r#"["other","front-proxy-client"]"#);
        live.set("/data", both.clone());
        assert_eq!(combined(&live, &second.config_map(), now.as_second()), both, "once is enough");
        let later = now.as_second() + 20 * 365 * 24 * 3600;
        assert_eq!(combined(&live, &second.config_map(), later)["client-ca-file"], "");
    }
}
