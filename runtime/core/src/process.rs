//! The last steps of a process before its program: limits, user, capabilities, directory, filter, exec.

use std::ffi::{CString, OsStr};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use oci_spec::runtime::{Linux, LinuxPersonalityDomain, PosixRlimitType, Process};
use rustix::fs::{Gid, Mode, Uid};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit};

use crate::capabilities::Sets;
use crate::channel::{Channel, Message};
use crate::labels::Labels;
use crate::scheduling::Scheduling;
use crate::seccomp::Program;
use crate::sys;
use crate::{Error, Result, failed};

/// A user database larger than this is not read.
const MAX_PASSWD_BYTES: u64 = 1 << 20;

/// A process of a container, checked and ready to be entered by the child.
#[derive(Debug)]
pub(crate) struct Prepared {
    args: Vec<CString>,
    env: Vec<CString>,
    cwd: PathBuf,
    uid: u32,
    gid: u32,
    groups: Vec<Gid>,
    umask: u32,
    rlimits: Vec<(Resource, Rlimit)>,
    capabilities: Sets,
    no_new_privileges: bool,
    oom_score_adj: Option<i32>,
    /// Whoever has not the right to set that fails.
    pub(crate) insists_on_oom_score: bool,
    pub(crate) scheduling: Scheduling,
    seccomp: Option<Rc<Program>>,
    pub(crate) labels: Labels,
    pub(crate) terminal: bool,
    pub(crate) window: Option<(u16, u16)>,
    /// The terminal adds nothing to a newline: it is passed on by somebody whose own terminal does that.
    pub(crate) plain_newlines: bool,
    personality: Option<u64>,
    /// Descriptors from 3 on that the program inherits.
    preserve_fds: u32,
    /// It has a session keyring of its own (keyrings(7)), or else its creator's.
    pub(crate) new_keyring: bool,
}

impl Prepared {
    /// Checks the `process` of a spec. Errors name the field. `own_users`: it is in a user namespace that is not ours.
    pub(crate) fn of(process: &Process, seccomp: Option<Rc<Program>>, own_users: bool) -> Result<Self> {
        let invalid = |what: String| Error::Invalid(format!("process.{what}"));
        let args = process.args().clone().unwrap_or_default();
        if args.first().is_none_or(String::is_empty) {
            return Err(invalid("args: must name a program".to_owned()));
        }
        if !process.cwd().is_absolute() {
            return Err(invalid(format!("cwd: {:?} is not an absolute path", process.cwd())));
        }
        let user = process.user();
        let groups = user.additional_gids().as_deref().unwrap_or_default();
        let ids = [("uid", user.uid()), ("gid", user.gid())];
        for (name, id) in ids.into_iter().chain(groups.iter().map(|gid| ("additionalGids", *gid))) {
            // To the kernel it says: as it was.
            if id == u32::MAX {
                return Err(invalid(format!("user.{name}: {id} is not an id")));
            }
        }
        let strings = |list: &[String], field: &str| -> Result<Vec<CString>> {
            let string =
                |s: &String| CString::new(s.as_str()).map_err(|_| invalid(format!("{field}: {s:?} contains NUL")));
            list.iter().map(string).collect()
        };
        let size = process.console_size();
        let narrow = |n: u64| u16::try_from(n).unwrap_or(u16::MAX);
        Ok(Self {
            args: strings(&args, "args")?,
            env: strings(process.env().as_deref().unwrap_or_default(), "env")?,
            cwd: process.cwd().clone(),
            uid: user.uid(),
            gid: user.gid(),
            groups: groups.iter().map(|gid| Gid::from_raw(*gid)).collect(),
            umask: user.umask().unwrap_or(0o022),
            rlimits: rlimits(process)?,
            capabilities: Sets::of(process.capabilities().as_ref(), own_users)?,
            no_new_privileges: process.no_new_privileges().unwrap_or(false),
            oom_score_adj: process.oom_score_adj(),
            insists_on_oom_score: false,
            scheduling: Scheduling::of(process)?,
            seccomp,
            labels: Labels::of(process)?,
            terminal: process.terminal().unwrap_or(false),
            window: size.map(|size| (narrow(size.height()), narrow(size.width()))),
            plain_newlines: false,
            personality: None,
            preserve_fds: 0,
            new_keyring: true,
        })
    }

    /// Takes over what the container says of each of its processes: execution domain and memory policy.
    pub(crate) fn in_container(mut self, linux: Option<&Linux>) -> Result<Self> {
        let personality = linux.and_then(|l| l.personality().as_ref());
        self.personality = personality.map(|personality| match personality.domain() {
            LinuxPersonalityDomain::PerLinux => 0,
            LinuxPersonalityDomain::PerLinux32 => 8,
        });
        if let Some(policy) = linux.and_then(|l| l.memory_policy().as_ref()) {
            self.scheduling.set_memory(policy)?;
        }
        Ok(self)
    }

    pub(crate) fn with_preserved_fds(mut self, count: u32) -> Self {
        self.preserve_fds = count;
        self
    }

    /// Descriptors that whoever called us passes on by the protocol of systemd (sd_listen_fds(3)).
    pub(crate) fn with_listen_fds(mut self, count: u32) -> Self {
        if count > 0 {
            self.preserve_fds = self.preserve_fds.saturating_add(count);
            self.env.extend(CString::new(format!("LISTEN_FDS={count}")));
            self.env.extend(CString::new("LISTEN_PID=1"));
        }
        self
    }

    /// What was asked for and will not be, one sentence each.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let name = |name| format!("can't raise ambient capability {name}: it is not permitted and inheritable");
        let missing: Vec<String> = self.capabilities.missing().collect();
        let missing = (!missing.is_empty()).then(|| crate::capabilities::ignored(&missing));
        missing.into_iter().chain(self.capabilities.refused_ambient().map(name)).collect()
    }

    /// Whether its system calls are to be answered by somebody else.
    pub(crate) fn has_listener(&self) -> bool {
        self.seccomp.as_ref().is_some_and(|program| program.has_listener())
    }

    /// Who the process is, inside.
    pub(crate) fn uid(&self) -> u32 {
        self.uid
    }

    /// Sets the OOM score of a process that is being made: in a user namespace it may not do that itself, and it has no
    /// /proc that it could trust. Where we may not lower it either, for want of CAP_SYS_RESOURCE, it stays, unless somebody
    /// insists.
    pub(crate) fn adjust_from_outside(&self, pid: i32) -> Result<()> {
        let Some(adjustment) = self.oom_score_adj else { return Ok(()) };
        match std::fs::write(format!("/proc/{pid}/oom_score_adj"), adjustment.to_string()) {
            // It has ended, and says why itself.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => Ok(()),
            Err(e) if e.raw_os_error() == Some(libc::EACCES) && !self.insists_on_oom_score => Ok(()),
            Err(e) => Err(Error::System("process.oomScoreAdj: set".to_owned(), e)),
            Ok(()) => Ok(()),
        }
    }

    /// Becomes the process, in its namespaces and root already; a failure goes to the parent. `standard` are stdin, stdout
    /// and stderr. At the gate, where there is one, it waits to be started; `before_exec` runs behind it, as the process, and
    /// is told its environment. `labels` are to be set, with a /proc to set them through.
    pub(crate) fn enter(
        &self,
        standard: [BorrowedFd<'_>; 3],
        channel: &Channel,
        gate: Option<BorrowedFd<'_>>,
        labels: Option<&(Labels, OwnedFd)>,
        before_exec: impl FnOnce(&[CString]) -> Result<()>,
    ) -> ! {
        let run = || -> Result<std::convert::Infallible> {
            let keep: Vec<BorrowedFd<'_>> = gate.iter().copied().chain([channel.as_fd()]).collect();
            let env = self.become_user(standard, channel, labels, &keep)?;
            let path = self.locate(&env)?;
            // Who listens has to be told while there still is a parent.
            if self.no_new_privileges && self.has_listener() {
                self.filter(channel)?;
            }
            gate.map_or(Ok(()), |gate| channel.wait_at(gate))?;
            if self.no_new_privileges && !self.has_listener() {
                self.filter(channel)?;
            }
            before_exec(&env)?;
            let failure = sys::exec(&path, &self.args, &env);
            let place = path.to_string_lossy();
            Err(match failure.raw_os_error() {
                // It was there: what is not is the interpreter that it names.
                Some(libc::ENOENT) => Error::Program(format!("exec {place}: no such file or directory")),
                _ => Error::System(format!("exec {place:?}"), failure),
            })
        };
        let Err(error) = run();
        if let Some(gate) = gate {
            // Who creates is gone when it is started: who starts reads what is left there.
            let _ = rustix::io::write(gate, error.to_string().as_bytes());
        }
        let _ = channel.send(&Message::of(error));
        sys::exit_now(1)
    }

    fn become_user(
        &self,
        standard: [BorrowedFd<'_>; 3],
        channel: &Channel,
        labels: Option<&(Labels, OwnedFd)>,
        keep: &[BorrowedFd<'_>],
    ) -> Result<Vec<CString>> {
        self.scheduling.apply()?;
        if let Some(persona) = self.personality {
            sys::personality(persona).map_err(|e| Error::System("set the personality".to_owned(), e))?;
        }
        self.set_streams(standard)?;
        labels.map_or(Ok(()), |(labels, proc)| labels.label_keys(proc))?;
        if self.new_keyring {
            // A full keyring quota is no reason to fail.
            let _ = sys::new_session_keyring();
        }
        labels.map_or(Ok(()), |(labels, proc)| labels.label_process(proc))?;
        // Who waits or runs holds nothing of the host. Before the filter, which may forbid it; from here on nothing else
        // that was open may be used, nor dropped: `enter` does not return.
        sys::close_others(self.preserve_fds.saturating_add(3), keep)
            .map_err(|e| Error::System("close descriptors".to_owned(), e))?;
        for (resource, limit) in &self.rlimits {
            rustix::process::setrlimit(*resource, *limit)
                .map_err(failed(|| format!("process.rlimits: set {resource:?}")))?;
        }
        let env = self.environment();
        self.capabilities.bound()?;
        if !self.no_new_privileges {
            self.filter(channel)?;
        }
        // Either may be the one that is let in: root of setup, or the user, on a file system of his own.
        let denied = |e: &Error| matches!(e, Error::System(_, e) if e.kind() == std::io::ErrorKind::PermissionDenied);
        let entered = self.change_directory();
        self.set_user()?;
        if entered.as_ref().is_err_and(denied) { self.change_directory() } else { entered }?;
        self.capabilities.apply()?;
        if self.no_new_privileges {
            rustix::thread::set_no_new_privs(true).map_err(failed(|| "set no_new_privs".to_owned()))?;
        }
        rustix::process::umask(Mode::from_raw_mode(self.umask & 0o777));
        Ok(env)
    }

    fn set_streams(&self, standard: [BorrowedFd<'_>; 3]) -> Result<()> {
        for (number, stream) in (0..).zip(standard) {
            sys::dup_to(stream, number).map_err(|e| Error::System("set the standard streams".to_owned(), e))?;
            self.own(stream)?;
        }
        if self.terminal {
            sys::set_controlling_terminal(standard[0])
                .map_err(|e| Error::System("take the controlling terminal".to_owned(), e))?;
        }
        Ok(())
    }

    /// Gives pipes, sockets and terminals to the process's user, so that it may open /dev/stdout again.
    fn own(&self, stream: BorrowedFd<'_>) -> Result<()> {
        use rustix::fs::FileType;
        let what = || "give the standard streams to the user".to_owned();
        let stat = rustix::fs::fstat(stream).map_err(failed(what))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let ours = matches!(kind, FileType::Fifo | FileType::Socket) || self.terminal;
        if !ours || stat.st_uid == self.uid {
            return Ok(());
        }
        // A terminal keeps the group that its file system gives to terminals.
        let group = (!self.terminal).then(|| Gid::from_raw(self.gid));
        match rustix::fs::fchown(stream, Some(Uid::from_raw(self.uid)), group) {
            // Not ours to give, or not mapped here.
            Ok(()) | Err(Errno::PERM | Errno::INVAL | Errno::ROFS) => Ok(()),
            Err(e) => Err(failed(what)(e)),
        }
    }

    fn set_user(&self) -> Result<()> {
        let what = || "set the user".to_owned();
        rustix::thread::set_keep_capabilities(true).map_err(failed(what))?;
        match rustix::thread::set_thread_groups(&self.groups) {
            // A user namespace that denies it.
            Err(Errno::PERM) if self.groups.is_empty() => {}
            other => other.map_err(failed(|| "process.user.additionalGids: set groups".to_owned()))?,
        }
        let gid = Gid::from_raw(self.gid);
        rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(failed(|| "process.user.gid: set".to_owned()))?;
        let uid = Uid::from_raw(self.uid);
        rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(failed(|| "process.user.uid: set".to_owned()))
    }

    /// chdir, and proof that we are inside then (CVE-2024-21626).
    fn change_directory(&self) -> Result<()> {
        let what = || format!("process.cwd: change to {}", self.cwd.display());
        rustix::process::chdir(&self.cwd).map_err(failed(what))?;
        match rustix::process::getcwd(Vec::new()) {
            Ok(cwd) if cwd.as_bytes().starts_with(b"/") => Ok(()),
            Ok(_) | Err(Errno::NOENT) => Err(Error::Invalid(format!("process.cwd: {} is outside", self.cwd.display()))),
            Err(e) => Err(failed(what)(e)),
        }
    }

    fn filter(&self, channel: &Channel) -> Result<()> {
        let Some(program) = &self.seccomp else { return Ok(()) };
        match program.install()? {
            Some(listener) => {
                channel.hand_over(listener).map_err(|e| Error::System("hand over the seccomp listener".to_owned(), e))
            }
            None => Ok(()),
        }
    }

    /// The environment with HOME, which comes from the container's own user database where nobody set it.
    fn environment(&self) -> Vec<CString> {
        let name = |e: &CString| e.as_bytes().split(|b| *b == b'=').next().map(<[u8]>::to_vec);
        let later = |at: usize, e: &CString| self.env.iter().skip(at + 1).any(|other| name(other) == name(e));
        // Of several values for a name the last one counts; an empty HOME is none.
        let kept = self.env.iter().enumerate().filter(|(at, e)| !later(*at, e) && e.as_bytes() != b"HOME=");
        let mut env: Vec<CString> = kept.map(|(_, e)| e.clone()).collect();
        if !env.iter().any(|e| e.as_bytes().starts_with(b"HOME=")) {
            env.extend(CString::new([b"HOME=", home(self.uid).as_bytes()].concat()));
        }
        env
    }

    /// The program's file; an error here comes before anybody waits for the start.
    fn locate(&self, env: &[CString]) -> Result<CString> {
        let program = self.args.first().map(|arg| arg.to_string_lossy().into_owned()).unwrap_or_default();
        let candidates = candidates(&program, env);
        let found = candidates.iter().find(|path| is_executable(path));
        // One that is there but may not be run says so when it is.
        let found = found.or_else(|| candidates.iter().find(|path| std::fs::symlink_metadata(path).is_ok()));
        match found {
            Some(path) => CString::new(path.as_os_str().as_bytes()).map_err(|e| Error::Invalid(e.to_string())),
            None if program.contains('/') => {
                let absent = std::io::Error::from_raw_os_error(libc::ENOENT);
                Err(Error::System(format!("exec: {program:?}: stat {program}"), absent))
            }
            None => Err(Error::Invalid(format!("exec: {program:?}: executable file not found in $PATH"))),
        }
    }
}

fn candidates(program: &str, env: &[CString]) -> Vec<PathBuf> {
    if program.contains('/') {
        return vec![PathBuf::from(program)];
    }
    let path = env.iter().find_map(|e| e.as_bytes().strip_prefix(b"PATH=")).unwrap_or(b"/usr/bin:/bin");
    path.split(|b| *b == b':').map(|dir| Path::new(OsStr::from_bytes(dir)).join(program)).collect()
}

fn is_executable(path: &Path) -> bool {
    let is_file = std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
    is_file && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

/// The home directory of a user by the container's /etc/passwd, `/` where it says nothing. We are inside the
/// container's root already.
fn home(uid: u32) -> String {
    let text = read_passwd().unwrap_or_default();
    let entry = text
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|f| f.get(2).is_some_and(|u| u.parse() == Ok(uid)));
    let home = entry.and_then(|fields| fields.get(5).map(|home| (*home).to_owned()));
    home.filter(|home| home.starts_with('/') && !home.contains('\0')).unwrap_or_else(|| "/".to_owned())
}

/// The image says what it is: no pipe that nobody writes to may keep us waiting.
fn read_passwd() -> std::io::Result<String> {
    use rustix::fs::{FileType, OFlags};
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::open("/etc/passwd", flags, Mode::empty())?;
    if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(std::io::ErrorKind::InvalidInput.into());
    }
    let mut text = String::new();
    std::fs::File::from(file).take(MAX_PASSWD_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

fn rlimits(process: &Process) -> Result<Vec<(Resource, Rlimit)>> {
    let mut limits: Vec<(Resource, Rlimit)> = Vec::new();
    for limit in process.rlimits().as_deref().unwrap_or_default() {
        let resource = resource(limit.typ());
        if limits.iter().any(|(r, _)| *r == resource) {
            return Err(Error::Invalid(format!("process.rlimits: {:?} occurs twice", limit.typ())));
        }
        if limit.soft() > limit.hard() {
            return Err(Error::Invalid(format!("process.rlimits: {:?}: soft above hard", limit.typ())));
        }
        let value = |n: u64| (n != u64::MAX).then_some(n);
        limits.push((resource, Rlimit { current: value(limit.soft()), maximum: value(limit.hard()) }));
    }
    Ok(limits)
}

fn resource(kind: PosixRlimitType) -> Resource {
    match kind {
        PosixRlimitType::RlimitCpu => Resource::Cpu,
        PosixRlimitType::RlimitFsize => Resource::Fsize,
        PosixRlimitType::RlimitData => Resource::Data,
        PosixRlimitType::RlimitStack => Resource::Stack,
        PosixRlimitType::RlimitCore => Resource::Core,
        PosixRlimitType::RlimitRss => Resource::Rss,
        PosixRlimitType::RlimitNproc => Resource::Nproc,
        PosixRlimitType::RlimitNofile => Resource::Nofile,
        PosixRlimitType::RlimitMemlock => Resource::Memlock,
        PosixRlimitType::RlimitAs => Resource::As,
        PosixRlimitType::RlimitLocks => Resource::Locks,
        PosixRlimitType::RlimitSigpending => Resource::Sigpending,
        PosixRlimitType::RlimitMsgqueue => Resource::Msgqueue,
        PosixRlimitType::RlimitNice => Resource::Nice,
        PosixRlimitType::RlimitRtprio => Resource::Rtprio,
        PosixRlimitType::RlimitRttime => Resource::Rttime,
    }
}
