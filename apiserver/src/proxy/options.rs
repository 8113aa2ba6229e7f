//! The options of log, exec, attach and port-forward: checked, and in the words of the node's server.

use std::fmt::Write;

use api::field::{Error, Path};
use api::{GroupKind, Status, StatusResult};

use crate::request::{Query, unread_number};

/// PodLogOptions of the pod of that name (`ValidatePodLogOptions`).
pub(super) fn log(query: &Query, pod: &str) -> StatusResult<String> {
    let mut errors = Vec::new();
    for (key, least, why) in [
        ("tailLines", 0, "must be greater than or equal to 0"),
        ("limitBytes", 1, "must be greater than 0"),
        ("sinceSeconds", 1, "must be greater than 0"),
    ] {
        let Some(text) = query.get(key) else { continue };
        let number: i64 = text.parse().map_err(|why| Status::bad_request(unread_number("ParseInt", text, &why)))?;
        if number < least {
            errors.push(Error::invalid(Path::new(key), number, why));
        }
    }
    if query.get("sinceSeconds").is_some() && query.get("sinceTime").is_some() {
        let why = "at most one of `sinceTime` or `sinceSeconds` may be specified";
        errors.push(Error::forbidden(Path::new("[]"), why));
    }
    if !errors.is_empty() {
        let kind = GroupKind { group: String::new(), kind: "PodLogOptions".into() };
        return Err(Status::invalid(&kind, pod, &errors));
    }
    let flags = ["follow", "previous", "timestamps"].into_iter().filter(|key| query.flag(key));
    let mut pairs: Vec<(&str, &str)> = flags.map(|key| (key, "true")).collect();
    for key in ["sinceSeconds", "sinceTime", "tailLines", "limitBytes", "stream"] {
        pairs.extend(query.get(key).map(|value| (key, value)));
    }
    Ok(encode(&pairs))
}

/// PodExecOptions and PodAttachOptions. In the query of exec, stdout and stderr are off unless asked for; in attach's,
/// they are on unless refused.
pub(super) fn streams(query: &Query, verb: &str) -> StatusResult<String> {
    let on = |key: &str| query.optional_flag(key).unwrap_or(verb == "attach" && key != "stdin" && key != "tty");
    let (stdin, stdout, stderr, tty) = (on("stdin"), on("stdout"), on("stderr"), on("tty"));
    if tty && stderr && query.optional_flag("stderr") == Some(true) {
        return Err(Status::bad_request("tty and stderr cannot both be true"));
    }
    if !stdin && !stdout && !stderr {
        return Err(Status::bad_request("you must specify at least one of stdin, stdout, stderr"));
    }
    let words = [("input", stdin), ("output", stdout), ("error", stderr && !tty), ("tty", tty)];
    let mut pairs: Vec<(&str, &str)> = words.into_iter().filter(|(_, on)| *on).map(|(key, _)| (key, "1")).collect();
    if verb == "exec" {
        pairs.extend(query.all("command").map(|word| ("command", word)));
        if query.all("command").next().is_none() {
            return Err(Status::bad_request("you must specify at least 1 command"));
        }
    }
    Ok(encode(&pairs))
}

/// PodPortForwardOptions.
pub(super) fn ports(query: &Query) -> String {
    let pairs: Vec<(&str, &str)> = query.all("ports").map(|port| ("port", port)).collect();
    encode(&pairs)
}

/// A query with its question mark; empty without pairs.
pub(crate) fn encode(pairs: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (key, value) in pairs {
        text.push(if text.is_empty() { '?' } else { '&' });
        text.push_str(key);
        text.push('=');
        for byte in value.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => text.push(char::from(byte)),
                byte => {
                    let _ = write!(text, "%{byte:02X}");
                }
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{log, streams};
    use crate::request::Query;

    fn streamed(query: &str, verb: &str) -> String {
        streams(&Query::parse(query), verb).unwrap_or_else(|status| status.message)
    }

    #[test]
    fn options_become_the_nodes_own() {
        let query = "container=c&command=sh&command=-c&command=a%20%26b&stdin=true&stdout=true&tty=true";
        assert_eq!(streamed(query, "exec"), "?input=1&output=1&tty=1&command=sh&command=-c&command=a%20%26b");
        assert_eq!(streamed("", "attach"), "?output=1&error=1");
        assert_eq!(streamed("command=a", "exec"), "you must specify at least one of stdin, stdout, stderr");
        assert_eq!(streamed("stdout=1", "exec"), "you must specify at least 1 command");
        assert_eq!(log(&Query::parse("follow=true&tailLines=3&container=x"), "p").unwrap(), "?follow=true&tailLines=3");
        let status = log(&Query::parse("tailLines=-1"), "p").unwrap_err();
        assert!(
            status.message.contains("tailLines: Invalid value: -1: must be greater than or equal to 0"),
            "{status}"
        );
    }
}
