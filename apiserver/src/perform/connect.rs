//! Admission of connects: exec, attach, port-forward and proxies. What is admitted are their options, made from the
//! query; where admission changes them, the query is made anew.

use api::{Document, Status};
use bytes::Bytes;
use http::{Request, Uri};
use hyper::body::Incoming;
use serde_json::{Map, Value};

use super::session::{Session, Settled};
use super::settings;
use crate::call::Call;
use crate::core::Core;
use crate::proxy::{encode, rest};
use crate::write;
use crate::write::machine::{Machine, Stepped};
use crate::write::options::WriteOptions;

/// The options that are flags; absent ones of attach are on but for `stdin` and `tty`.
const FLAGS: [&str; 4] = ["stdin", "stdout", "stderr", "tty"];

/// The request as admission leaves it.
pub(crate) async fn admit(core: &Core, call: &Call, mut request: Request<Incoming>) -> Settled<Request<Incoming>> {
    let settings = match settings(core, call).await {
        Ok(settings) => settings,
        Err(status) => return Settled { answer: Err(status), warnings: Vec::new(), annotations: Vec::new() },
    };
    let wanted = options(call, request.uri());
    let asked = write::Request {
        call: call.clone(),
        verb: write::Verb::Create,
        options: WriteOptions::default(),
        body: Bytes::new(),
        format: api::decode::Format::Json,
        settings,
        internal: false,
        collection: false,
    };
    let admitted = |machine: &mut Machine<'_>| admitted(machine, &wanted);
    let Settled { answer, warnings, annotations } = Session::new(core, &asked).settle(admitted).await;
    let answer = answer.map(|options| {
        if let Some(uri) = (options != wanted).then(|| changed(request.uri(), &options)).flatten() {
            *request.uri_mut() = uri;
        }
        request
    });
    Settled { answer, warnings, annotations }
}

fn admitted(machine: &mut Machine<'_>, wanted: &Document) -> Stepped<Document> {
    let call = &machine.request.call;
    let kind = call.subresource().map(|sub| sub.kind.clone()).ok_or_else(Status::page_not_found)?;
    let mut options = wanted.clone();
    let admission = machine.admission_of("connect", &machine.object_name().name, &kind);
    machine.admit(&admission, &mut options, None)?;
    Ok(options)
}

/// `PodExecOptions` and its kin.
fn options(call: &Call, uri: &Uri) -> Document {
    let mut options = Map::new();
    if let Some(sub) = call.subresource() {
        options.insert("kind".into(), sub.kind.kind.as_str().into());
        options.insert("apiVersion".into(), sub.kind.group_version().to_string().into());
    }
    let mut set = |key: &str, value: Value| drop(options.insert(key.into(), value));
    let query = &call.query;
    match call.target.subresource.as_str() {
        "proxy" => set("path", rest(uri).into()),
        "portforward" => {
            let ports = query.all("ports").flat_map(|ports| ports.split(','));
            set("ports", ports.filter_map(|port| port.parse::<i64>().ok()).collect::<Vec<_>>().into());
        }
        verb => {
            for flag in FLAGS {
                let on = query.optional_flag(flag).unwrap_or(verb == "attach" && !matches!(flag, "stdin" | "tty"));
                if on {
                    set(flag, true.into());
                }
            }
            if let Some(container) = query.get("container").filter(|name| !name.is_empty()) {
                set("container", container.into());
            }
            let command: Vec<&str> = query.all("command").collect();
            if !command.is_empty() {
                set("command", command.into());
            }
        }
    }
    Document::new(Value::Object(options)).unwrap_or_default()
}

/// The same path with other options. A proxied path stays as it is: it was authorized as it is.
fn changed(uri: &Uri, options: &Document) -> Option<Uri> {
    if options.kind().ends_with("ProxyOptions") {
        return None;
    }
    let flags = FLAGS.iter().map(|flag| (*flag, options.bool_at(&format!("/{flag}")).to_string()));
    let mut pairs: Vec<(&str, String)> = flags.filter(|_| options.kind() != "PodPortForwardOptions").collect();
    pairs.extend(options.list_at("/ports").iter().map(|port| ("ports", port.to_string())));
    pairs.extend(Some(options.str_at("/container")).filter(|c| !c.is_empty()).map(|c| ("container", c.to_owned())));
    let words = options.list_at("/command").iter().filter_map(Value::as_str);
    pairs.extend(words.map(|word| ("command", word.to_owned())));
    let pairs: Vec<(&str, &str)> = pairs.iter().map(|(key, value)| (*key, value.as_str())).collect();
    format!("{}{}", uri.path(), encode(&pairs)).parse().ok()
}
