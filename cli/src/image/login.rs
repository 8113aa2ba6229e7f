//! Who we are to registries: what Docker's `config.json` and its credential helpers know.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use runtime_image::{Auth, Credentials, Found, Reference, Registries};

/// Adds what Docker knows of an image's registry and of its mirrors. Returns the registry's.
pub(super) fn of(reference: &str, registries: &mut Registries) -> Result<Auth> {
    let credentials = read()?;
    let registry = Reference::parse(reference)?.registry;
    let mirrors = registries.hosts.get(&registry).map(|host| host.mirrors.clone()).unwrap_or_default();
    for mirror in mirrors {
        let bare = mirror.trim_start_matches("https://").trim_start_matches("http://");
        let host = bare.split('/').next().unwrap_or_default().to_owned();
        let known = find(&credentials, &host)?;
        let entry = registries.hosts.entry(host).or_default();
        entry.auth = entry.auth.take().or(known);
    }
    Ok(find(&credentials, &registry)?.unwrap_or(Auth::Anonymous))
}

fn read() -> Result<Credentials> {
    let Some(path) = path() else { return Ok(Credentials::default()) };
    match std::fs::read(&path) {
        Ok(bytes) => Credentials::parse(&bytes).with_context(|| format!("read {}", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Credentials::default()),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

/// `$DOCKER_CONFIG/config.json`, or `~/.docker/config.json`.
fn path() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let dir = set("DOCKER_CONFIG").or_else(|| set("HOME").map(|home| home.join(".docker")))?;
    Some(dir.join("config.json"))
}

fn find(credentials: &Credentials, registry: &str) -> Result<Option<Auth>> {
    Ok(match credentials.find(registry)? {
        None => None,
        Some(Found::Auth(auth)) => Some(auth),
        Some(Found::Helper { helper, server }) => Some(ask(&helper, &server)?),
    })
}

fn ask(helper: &str, server: &str) -> Result<Auth> {
    if helper.contains('/') {
        bail!("credential helper {helper:?}: a name is wanted, not a path");
    }
    let program = format!("docker-credential-{helper}");
    let mut command = Command::new(&program);
    command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("run {program}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(server.as_bytes()).with_context(|| format!("tell {program} the registry"))?;
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("{program} knows no credentials of {server} ({})", output.status);
    }
    Ok(Credentials::answer(&output.stdout)?)
}
