//! A container's environment, from every source.

use std::collections::BTreeMap;

use api::k8s_openapi::api::core::v1::{ConfigMap, Container, EnvFromSource, EnvVarSource, Pod, Secret, Service};

use crate::fields::{Downward, field, resource};

/// The objects that a pod's environment and volumes are made from, of the pod's own namespace.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// By name; absent where there is none.
    pub config_maps: BTreeMap<String, ConfigMap>,
    /// By name; absent where there is none.
    pub secrets: BTreeMap<String, Secret>,
    /// Service account tokens, by volume and path.
    pub tokens: BTreeMap<(String, String), String>,
    /// Services of the pod's namespace, and `default/kubernetes`.
    pub services: Vec<Service>,
}

impl Sources {
    fn config_map(&self, name: &str, optional: bool) -> Result<Option<&ConfigMap>, String> {
        match self.config_maps.get(name) {
            None if !optional => Err(format!("configmap \"{name}\" not found")),
            found => Ok(found),
        }
    }

    fn secret(&self, name: &str, optional: bool) -> Result<Option<&Secret>, String> {
        match self.secrets.get(name) {
            None if !optional => Err(format!("secret \"{name}\" not found")),
            found => Ok(found),
        }
    }
}

/// The environment of a container, in order: from whole objects, then declared variables, then services. Later ones
/// replace earlier ones of the same name; `$(NAME)` refers to what stands before it.
pub fn environment(
    pod: &Pod,
    container: &Container,
    sources: &Sources,
    facts: &Downward<'_>,
) -> Result<Vec<(String, String)>, String> {
    let services = service_links(pod, &sources.services);
    let mut env = Env::default();
    for source in container.env_from.iter().flatten() {
        env.add_all(source, sources)?;
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(text), _) if !text.is_empty() => {
                Some(expand(text, |name| env.get(name).or_else(|| services.get(name))))
            }
            (_, Some(from)) => value_from(pod, container, from, sources, facts)?,
            _ => Some(String::new()),
        };
        if let Some(value) = value {
            env.set(&variable.name, value);
        }
    }
    for (name, value) in &services {
        if env.get(name).is_none() {
            env.set(name, value.clone());
        }
    }
    Ok(env.0)
}

/// Variables in the order in which they were first set.
#[derive(Default)]
struct Env(Vec<(String, String)>);

impl Env {
    fn get(&self, name: &str) -> Option<&String> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v)
    }

    fn set(&mut self, name: &str, value: String) {
        match self.0.iter_mut().find(|(n, _)| n == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name.into(), value)),
        }
    }

    fn add_all(&mut self, from: &EnvFromSource, sources: &Sources) -> Result<(), String> {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &from.config_map_ref {
            let found = sources.config_map(&reference.name, reference.optional == Some(true))?;
            for (key, value) in found.and_then(|m| m.data.as_ref()).into_iter().flatten() {
                self.set(&format!("{prefix}{key}"), value.clone());
            }
        }
        if let Some(reference) = &from.secret_ref {
            let found = sources.secret(&reference.name, reference.optional == Some(true))?;
            for (key, value) in found.and_then(|s| s.data.as_ref()).into_iter().flatten() {
                self.set(&format!("{prefix}{key}"), String::from_utf8_lossy(&value.0).into_owned());
            }
        }
        Ok(())
    }
}

fn value_from(
    pod: &Pod,
    container: &Container,
    from: &EnvVarSource,
    sources: &Sources,
    facts: &Downward<'_>,
) -> Result<Option<String>, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    if let Some(reference) = &from.field_ref {
        return field(pod, &reference.field_path, facts).map(Some);
    }
    if let Some(reference) = &from.resource_field_ref {
        return resource(pod, Some(container), reference, facts).map(Some);
    }
    let (value, optional, key, what) = if let Some(reference) = &from.config_map_key_ref {
        let optional = reference.optional == Some(true);
        let found = sources.config_map(&reference.name, optional)?;
        let value = found.and_then(|m| m.data.as_ref()).and_then(|d| d.get(&reference.key)).cloned();
        (value, optional, &reference.key, format!("ConfigMap {namespace}/{}", reference.name))
    } else if let Some(reference) = &from.secret_key_ref {
        let optional = reference.optional == Some(true);
        let found = sources.secret(&reference.name, optional)?;
        let value = found.and_then(|s| s.data.as_ref()).and_then(|d| d.get(&reference.key));
        let value = value.map(|v| String::from_utf8_lossy(&v.0).into_owned());
        (value, optional, &reference.key, format!("Secret {namespace}/{}", reference.name))
    } else {
        return Ok(Some(String::new()));
    };
    match value {
        None if !optional => Err(format!("couldn't find key {key} in {what}")),
        value => Ok(value),
    }
}

/// Replaces `$(NAME)` by its value; an unknown name stays, `$$` stands for one dollar.
pub fn expand<'a>(text: &str, value: impl Fn(&str) -> Option<&'a String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|r| r.split_once(')')) {
            match value(name) {
                Some(value) => out.push_str(value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

/// Variables that tell where the services of the namespace are, and the API server.
fn service_links(pod: &Pod, services: &[Service]) -> BTreeMap<String, String> {
    let links = pod.spec.as_ref().and_then(|s| s.enable_service_links) != Some(false);
    let namespace = &pod.metadata.namespace;
    let mut env = BTreeMap::new();
    for service in services {
        let meta = &service.metadata;
        let is = |text: &Option<String>, other: &str| text.as_deref() == Some(other);
        let master = is(&meta.namespace, "default") && is(&meta.name, "kubernetes");
        if master || (links && meta.namespace == *namespace) {
            link(service, &mut env);
        }
    }
    env
}

fn link(service: &Service, env: &mut BTreeMap<String, String>) {
    let Some(spec) = &service.spec else { return };
    let ip = match spec.cluster_ip.as_deref() {
        None | Some("" | "None") => return,
        Some(ip) => ip,
    };
    let upper = |text: &str| text.replace('-', "_").to_ascii_uppercase();
    let prefix = upper(service.metadata.name.as_deref().unwrap_or_default());
    let mut set = |name: String, value: String| env.insert(name, value);
    set(format!("{prefix}_SERVICE_HOST"), ip.into());
    for (index, port) in spec.ports.iter().flatten().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let (lower, number) = (protocol.to_ascii_lowercase(), port.port);
        let host = if ip.contains(':') { format!("[{ip}]") } else { ip.into() };
        let url = format!("{lower}://{host}:{number}");
        if index == 0 {
            set(format!("{prefix}_SERVICE_PORT"), number.to_string());
            set(format!("{prefix}_PORT"), url.clone());
        }
        if let Some(name) = port.name.as_deref().filter(|n| !n.is_empty()) {
            set(format!("{prefix}_SERVICE_PORT_{}", upper(name)), number.to_string());
        }
        let at = format!("{prefix}_PORT_{number}_{}", protocol.to_ascii_uppercase());
        set(at.clone(), url);
        set(format!("{at}_PROTO"), lower);
        set(format!("{at}_PORT"), number.to_string());
        set(format!("{at}_ADDR"), ip.into());
    }
}
