//! The containers of a pod in one list, with the part each plays and the rules for starting it again.

use std::borrow::Cow;

use api::k8s_openapi::api::core::v1::{Container, ContainerRestartRule, EphemeralContainer, Pod};

/// The part a container plays in its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Runs to success before the next one starts.
    Init,
    /// An init container with `restartPolicy: Always`: started in order, then kept running beside the main ones.
    Sidecar,
    /// One of `spec.containers`.
    Main,
    /// Added for debugging; never started twice.
    Ephemeral,
}

/// A container with its role.
#[derive(Clone, Debug)]
pub struct Member<'a> {
    /// What part it plays.
    pub role: Role,
    /// Its specification.
    pub container: Cow<'a, Container>,
}

impl Member<'_> {
    /// The container's name, unique in the pod.
    pub fn name(&self) -> &str {
        &self.container.name
    }

    /// The container as an event names it: `spec.containers{web}`.
    pub fn field_path(&self) -> String {
        let list = match self.role {
            Role::Init | Role::Sidecar => "initContainers",
            Role::Main => "containers",
            Role::Ephemeral => "ephemeralContainers",
        };
        format!("spec.{list}{{{}}}", self.name())
    }
}

/// Every container of a pod: init and sidecar containers in order, then main ones, then ephemeral ones.
pub fn members(pod: &Pod) -> Vec<Member<'_>> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let init = spec.init_containers.iter().flatten().map(|c| Member {
        role: if c.restart_policy.as_deref() == Some("Always") { Role::Sidecar } else { Role::Init },
        container: Cow::Borrowed(c),
    });
    let main = spec.containers.iter().map(|c| Member { role: Role::Main, container: Cow::Borrowed(c) });
    let ephemeral = spec
        .ephemeral_containers
        .iter()
        .flatten()
        .map(|c| Member { role: Role::Ephemeral, container: Cow::Owned(plain(c)) });
    init.chain(main).chain(ephemeral).collect()
}

/// The container of that name.
pub fn member<'a>(pod: &'a Pod, name: &str) -> Option<Member<'a>> {
    members(pod).into_iter().find(|m| m.name() == name)
}

/// The container whose processes an ephemeral one of this name is to see. In a pod that shares its pid namespace, or has
/// the host's, it sees them all anyway.
pub fn target<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    let spec = pod.spec.as_ref()?;
    if spec.share_process_namespace == Some(true) || spec.host_pid == Some(true) {
        return None;
    }
    let own = spec.ephemeral_containers.iter().flatten().find(|c| c.name == name)?;
    own.target_container_name.as_deref().filter(|target| !target.is_empty())
}

/// Whether the pod has a user namespace of its own.
pub fn own_users(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|s| s.host_users) == Some(false)
}

/// An ephemeral container has a container's fields and a target.
fn plain(ephemeral: &EphemeralContainer) -> Container {
    let fallback = || Container { name: ephemeral.name.clone(), ..Container::default() };
    serde_json::to_value(ephemeral).ok().and_then(|v| serde_json::from_value(v).ok()).unwrap_or_else(fallback)
}

/// Whether a container that ended with `exit_code` is started again (KEP-5307 for the rules of single containers).
pub fn restarts(pod: &Pod, member: &Member<'_>, exit_code: i32) -> bool {
    match member.role {
        Role::Sidecar => true,
        Role::Ephemeral => false,
        Role::Init | Role::Main => {
            let rules = member.container.restart_policy_rules.iter().flatten();
            rules.into_iter().any(|rule| matches(rule, exit_code)) || by_policy(pod, member, exit_code)
        }
    }
}

fn by_policy(pod: &Pod, member: &Member<'_>, exit_code: i32) -> bool {
    match policy(pod, member) {
        "Never" => false,
        "OnFailure" => exit_code != 0,
        _ => member.role == Role::Main || exit_code != 0,
    }
}

/// Whether a container that we kill ourselves (a failed probe) is started again.
pub fn restarts_when_killed(pod: &Pod, member: &Member<'_>) -> bool {
    match member.role {
        Role::Sidecar => true,
        Role::Ephemeral => false,
        Role::Init | Role::Main => policy(pod, member) != "Never",
    }
}

fn policy<'a>(pod: &'a Pod, member: &'a Member<'_>) -> &'a str {
    let of_pod = pod.spec.as_ref().and_then(|s| s.restart_policy.as_deref());
    member.container.restart_policy.as_deref().or(of_pod).unwrap_or("Always")
}

fn matches(rule: &ContainerRestartRule, exit_code: i32) -> bool {
    let Some(codes) = &rule.exit_codes else { return false };
    let listed = codes.values.iter().flatten().any(|v| *v == exit_code);
    rule.action.starts_with("Restart")
        && match codes.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        }
}
