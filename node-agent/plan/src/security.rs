//! Who a container's process is, and what it may do.

use api::k8s_openapi::api::core::v1::{Container, Pod, PodSecurityContext, SecurityContext};

/// The capabilities of a container that asks for none.
const DEFAULT: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Every capability of the kernel.
const ALL: [&str; 41] = [
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "SYSLOG",
    "WAKE_ALARM",
];

/// The identity of a process.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Its home directory, where the image's /etc/passwd names one.
    pub home: Option<String>,
}

/// What an image says about users.
#[derive(Clone, Debug, Default)]
pub struct ImageUsers<'a> {
    /// `USER` of its configuration: `user[:group]`, names or numbers, or nothing.
    pub user: &'a str,
    /// Its `/etc/passwd`.
    pub passwd: &'a str,
    /// Its `/etc/group`.
    pub group: &'a str,
}

/// Whether a container is privileged.
pub fn privileged(container: &Container) -> bool {
    container.security_context.as_ref().and_then(|s| s.privileged) == Some(true)
}

/// The capabilities of a container, `CAP_...`, sorted (Docker's rules for `add` and `drop`).
pub fn capabilities(container: &Container) -> Vec<String> {
    let wish = container.security_context.as_ref().and_then(|s| s.capabilities.clone()).unwrap_or_default();
    let names = |list: Option<Vec<String>>| -> Vec<String> {
        list.unwrap_or_default().iter().map(|n| n.to_ascii_uppercase().trim_start_matches("CAP_").into()).collect()
    };
    let (add, drop) = (names(wish.add), names(wish.drop));
    let all = |list: &[String]| list.iter().any(|n| n == "ALL");
    let has = |list: &[String], name: &str| list.iter().any(|n| n == name);
    let kept = |name: &&&str| {
        if privileged(container) {
            return true;
        }
        let base = !all(&drop) && DEFAULT.contains(*name);
        let given = has(&add, name) || (all(&add) && !has(&drop, name));
        given || (base && !has(&drop, name))
    };
    ALL.iter().filter(kept).map(|name| format!("CAP_{name}")).collect()
}

/// Whether the process may gain privileges: privileged ones and holders of CAP_SYS_ADMIN always, others unless told
/// not to.
pub fn no_new_privileges(container: &Container) -> bool {
    let context = container.security_context.as_ref();
    !privileged(container) && context.and_then(|s| s.allow_privilege_escalation) == Some(false)
}

/// Who the process is: the container's wish, the pod's, the image's, root.
pub fn identity(pod: &Pod, container: &Container, image: &ImageUsers<'_>) -> Result<Identity, String> {
    let pod_context = pod.spec.as_ref().and_then(|s| s.security_context.clone()).unwrap_or_default();
    let context = container.security_context.clone().unwrap_or_default();
    let wanted = id(context.run_as_user.or(pod_context.run_as_user), "runAsUser")?;
    let (user, group) = image.user.split_once(':').unwrap_or((image.user, ""));
    let entry = match wanted {
        Some(uid) => passwd(image.passwd, &uid.to_string()),
        None => passwd(image.passwd, user),
    };
    let uid = match (wanted, user, &entry) {
        (Some(uid), ..) => uid,
        (None, "", _) => 0,
        (None, _, Some(entry)) => entry.uid,
        (None, name, None) => {
            number(name).ok_or_else(|| format!("unable to find user {name}: no matching entries in passwd file"))?
        }
    };
    verify_non_root(pod, container, &pod_context, &context, wanted, user, uid)?;
    let gid = match id(context.run_as_group.or(pod_context.run_as_group), "runAsGroup")? {
        Some(gid) => gid,
        None if wanted.is_none() && !group.is_empty() => group_id(image.group, group)?,
        None => entry.as_ref().map_or(0, |e| e.gid),
    };
    let name = entry.as_ref().map(|e| e.name.clone());
    let groups = groups(&pod_context, image, name.as_deref(), gid);
    Ok(Identity { uid, gid, groups, home: entry.map(|e| e.home) })
}

/// Ids are 32 bits wide, and never wrap.
fn id(value: Option<i64>, field: &str) -> Result<Option<u32>, String> {
    let id = |v: i64| u32::try_from(v).ok().filter(|id| *id != NOBODY);
    value.map(|v| id(v).ok_or_else(|| format!("{field} {v} is out of range"))).transpose()
}

/// What the kernel takes for no id at all.
const NOBODY: u32 = u32::MAX;

/// An id of an image: decimal digits and nothing else (CVE-2024-40635).
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id != NOBODY && text.bytes().all(|byte| byte.is_ascii_digit()))
}

fn verify_non_root(
    pod: &Pod,
    container: &Container,
    of_pod: &PodSecurityContext,
    own: &SecurityContext,
    wanted: Option<u32>,
    user: &str,
    uid: u32,
) -> Result<(), String> {
    if own.run_as_non_root.or(of_pod.run_as_non_root) != Some(true) {
        return Ok(());
    }
    let place = format!("(pod: \"{}\", container: {})", crate::status::pod_text(pod), container.name);
    match wanted {
        Some(0) => Err(format!("container's runAsUser breaks non-root policy {place}")),
        Some(_) => Ok(()),
        None if !user.is_empty() && number(user).is_none() => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root {place}"
        )),
        None if uid == 0 => Err(format!("container has runAsNonRoot and image will run as root {place}")),
        None => Ok(()),
    }
}

/// A line of /etc/passwd.
struct Entry {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

/// The entry of a user by name or number.
fn passwd(file: &str, user: &str) -> Option<Entry> {
    file.lines().find_map(|line| {
        let mut parts = line.split(':');
        let (name, _, uid, gid, _, home) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let fits = !user.is_empty() && (name == user || uid == user);
        let fits = fits || (user.is_empty() && uid == "0");
        let entry = || Some(Entry { name: name.into(), uid: number(uid)?, gid: number(gid)?, home: home.into() });
        fits.then(entry)?
    })
}

fn group_id(file: &str, group: &str) -> Result<u32, String> {
    let found = file.lines().find_map(|line| {
        let mut parts = line.split(':');
        let (name, _, gid) = (parts.next()?, parts.next()?, parts.next()?);
        (name == group).then(|| number(gid))?
    });
    found
        .or_else(|| number(group))
        .ok_or_else(|| format!("unable to find group {group}: no matching entries in group file"))
}

/// The pod's groups and its fsGroup, and those of the image's /etc/group unless the policy is strict.
fn groups(context: &PodSecurityContext, image: &ImageUsers<'_>, user: Option<&str>, gid: u32) -> Vec<u32> {
    let own = context.supplemental_groups.iter().flatten().chain(&context.fs_group);
    let mut list: Vec<u32> = own.filter_map(|g| u32::try_from(*g).ok()).collect();
    if context.supplemental_groups_policy.as_deref() != Some("Strict")
        && let Some(user) = user
    {
        list.extend(member_of(image.group, user));
    }
    list.push(gid);
    list.sort_unstable();
    list.dedup();
    list
}

fn member_of(file: &str, user: &str) -> Vec<u32> {
    file.lines()
        .filter_map(|line| {
            let mut parts = line.split(':').skip(2);
            let (gid, users) = (parts.next()?, parts.next()?);
            users.split(',').any(|u| u == user).then(|| number(gid))?
        })
        .collect()
}
