//! Starting processes in containers. The parent prepares everything that can fail early and clones once. Then both work:
//! the child makes its namespaces and its file system, the parent its cgroups; over a socket each learns what the other
//! has for it, and the parent how it went.

use std::cell::Cell;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::process::DumpableBehavior;
use rustix::thread::{
    LinkNameSpaceType, ThreadNameSpaceType, UnshareFlags, move_into_link_name_space, move_into_thread_name_spaces,
};

use crate::cgroup::{self, Named, Seats};
use crate::channel::{Channel, Message};
use crate::id_maps::{self, IdMaps};
use crate::labels::Labels;
use crate::process::Prepared;
use crate::sys::{self, Forked};
use crate::{Error, Result, devices, failed, proc, resolve, rootfs};

/// The flags of new namespaces, as clone3 wants them.
pub(crate) const NEW_PID: u64 = libc::CLONE_NEWPID as u64;
pub(crate) const NEW_NET: u64 = libc::CLONE_NEWNET as u64;
pub(crate) const NEW_IPC: u64 = libc::CLONE_NEWIPC as u64;
pub(crate) const NEW_UTS: u64 = libc::CLONE_NEWUTS as u64;
pub(crate) const NEW_MOUNT: u64 = libc::CLONE_NEWNS as u64;
pub(crate) const NEW_USER: u64 = libc::CLONE_NEWUSER as u64;
/// Those that a process has to be born in. It makes the others itself, while its parent is busy with its cgroups.
const BORN_IN: u64 = NEW_PID | NEW_USER;

/// The first process of a container.
pub(crate) struct Init<'a> {
    pub(crate) process: &'a Prepared,
    pub(crate) rootfs: Files<'a>,
    /// NEW_* flags.
    pub(crate) new: u64,
    /// A cgroup namespace of its own.
    pub(crate) new_cgroup: bool,
    /// A new time namespace whose clocks are set off by this (time_namespaces(7), timens_offsets).
    pub(crate) new_time: Option<String>,
    /// Namespaces to join.
    pub(crate) join: Vec<(LinkNameSpaceType, OwnedFd)>,
    /// A pid namespace to be born in.
    pub(crate) pid_namespace: Option<BorrowedFd<'a>>,
    pub(crate) user_map: Option<IdMaps>,
    /// A user namespace to be born in: what is new then belongs to it.
    pub(crate) user_namespace: Option<BorrowedFd<'a>>,
    pub(crate) hostname: Option<String>,
    pub(crate) domainname: Option<String>,
    pub(crate) sysctls: Vec<(String, String)>,
    /// A v2 cgroup to be born in.
    pub(crate) born_in: Option<BorrowedFd<'a>>,
    /// Makes the cgroups that it was not born in. Runs in the parent, while the child works.
    pub(crate) cgroups: &'a dyn Fn() -> Result<Seats>,
    /// Somebody looks at it while it is being made: `place` runs when it is in its v1 cgroups and in all its namespaces.
    pub(crate) watched: bool,
    /// Reads one byte when the container is to start: a fifo opened for both ways.
    pub(crate) gate: Option<OwnedFd>,
    /// Runs in the child when all is mounted, the host's files still in sight.
    pub(crate) before_pivot: Option<&'a dyn Fn() -> Result<()>>,
    /// Runs in the child behind the gate, as the process; is told its environment.
    pub(crate) before_exec: Option<BeforeExec<'a>>,
    pub(crate) listener: Listener<'a>,
}

/// Who opens what a container's file system is made of.
pub(crate) enum Files<'a> {
    /// We have, with our rights on the host.
    Opened(rootfs::Plan),
    /// Its first process does, as root of its user namespace, for want of rights of ours: with its cgroups.
    OpenedInside(&'a dyn Fn() -> Result<rootfs::Plan>),
}

/// What is done as a process just before its program; is told its environment.
pub(crate) type BeforeExec<'a> = &'a dyn Fn(&[CString]) -> Result<()>;

/// Takes a process's seccomp listener to where it belongs; is told the pid.
pub(crate) type Listener<'a> = &'a dyn Fn(i32, OwnedFd) -> Result<()>;

/// A process that runs its program now (or waits at its gate).
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    /// The terminal's master, where one was wanted.
    pub(crate) terminal: Option<OwnedFd>,
}

/// Starts a container's first process. `place` does what has to be done to a pid from outside, such as putting it into a
/// v2 cgroup that it could not be born in; it runs while the child works.
pub(crate) fn start(
    init: &Init<'_>,
    standard: [BorrowedFd<'_>; 3],
    place: impl FnOnce(i32) -> Result<()>,
) -> Result<Started> {
    let (parent, child) = pair()?;
    let labels = init.process.labels.here()?;
    // Set in the child only, where it has been told by the process in between.
    let joined = Cell::new(false);
    let far = init.user_namespace.is_some() || (init.user_map.is_some() && !init.join.is_empty());
    let leaves = init.pid_namespace.is_some() || init.new_time.is_some();
    let between = far || (leaves && !may_return());
    // Who maps ids with the rights of a user alone has to own the process's files in /proc, which are root's otherwise.
    // Nobody else is in a new user namespace, so nobody in there can look at the process yet.
    let in_sight = init.user_map.is_some() && !rustix::process::geteuid().is_root();
    if in_sight {
        set_dumpable(DumpableBehavior::Dumpable)?;
    }
    let forked = if between {
        by_one_between(|| cross(init, &joined))?
    } else {
        in_new_time_namespace(init.new_time.as_deref(), || {
            in_pid_namespace(init.pid_namespace, || sys::fork(init.new & BORN_IN, init.born_in))
        })?
    };
    let (pid, pidfd) = match forked {
        Forked::Parent { pid, pidfd } => (pid, pidfd),
        Forked::Child => {
            drop(parent);
            run_child(&child, |channel| run_init(init, labels, joined.get(), in_sight, standard, channel))
        }
    };
    drop(child);
    if in_sight {
        set_dumpable(DumpableBehavior::NotDumpable)?;
    }
    // While it is in sight.
    let mapped = init.process.adjust_from_outside(pid);
    let mapped = mapped.and_then(|()| id_maps::map(init.user_map.as_ref(), pid, &parent));
    let seated = mapped.and_then(|()| (init.cgroups)()).and_then(|seats| offer(&parent, seats));
    let seated = seated.and_then(|()| if init.watched { await_entered(&parent) } else { Ok(()) });
    let placed = seated.and_then(|()| place(pid));
    conclude(Running { pid, pidfd, channel: parent, listener: init.listener }, placed)
}

/// A process beside a container's first.
pub(crate) struct Join<'a> {
    pub(crate) process: &'a Prepared,
    /// The first process.
    pub(crate) target: BorrowedFd<'a>,
    pub(crate) namespaces: ThreadNameSpaceType,
    /// Its pid namespace, where not ours.
    pub(crate) pid_namespace: Option<BorrowedFd<'a>>,
    /// Its user namespace, where that is not ours: who may not join the others from here may from there.
    pub(crate) user_namespace: Option<BorrowedFd<'a>>,
    /// Its root, where that is not the root of its mount namespace.
    pub(crate) root: Option<BorrowedFd<'a>>,
    pub(crate) born_in: Option<BorrowedFd<'a>>,
    /// The ways into v1 cgroups.
    pub(crate) doors: &'a [Named],
    pub(crate) listener: Listener<'a>,
}

/// Starts a process in a running container.
pub(crate) fn join(
    join: &Join<'_>,
    standard: [BorrowedFd<'_>; 3],
    place: impl FnOnce(i32) -> Result<()>,
) -> Result<Started> {
    let (parent, child) = pair()?;
    let labels = join.process.labels.here()?;
    let mut namespaces = join.namespaces;
    let forked = match join.pid_namespace {
        Some(namespace) if !may_return() => by_one_between(|| {
            enter_pid_namespace(namespace)?;
            fork_for_parent(0, join.born_in)
        }),
        namespace => in_pid_namespace(namespace, || sys::fork(0, join.born_in)),
    };
    let forked = match (forked, join.user_namespace) {
        (Err(e), Some(user)) if is_refusal(&e) => {
            namespaces.remove(ThreadNameSpaceType::USER);
            in_user_namespace(user, join.pid_namespace, 0)?
        }
        (forked, _) => forked?,
    };
    let (pid, pidfd) = match forked {
        Forked::Parent { pid, pidfd } => (pid, pidfd),
        Forked::Child => {
            drop(parent);
            run_child(&child, |channel| run_joined(join, labels, namespaces, standard, channel))
        }
    };
    drop(child);
    let adjusted = join.process.adjust_from_outside(pid);
    let running = Running { pid, pidfd, channel: parent, listener: join.listener };
    conclude(running, adjusted.and_then(|()| place(pid)))
}

/// Hands a child its places in cgroups. One that has failed already has said so, and is heard later.
fn offer(channel: &Channel, seats: Seats) -> Result<()> {
    match channel.send(&Message::Seats(seats)) {
        Err(e) if e.kind() == std::io::ErrorKind::InvalidInput => {
            Err(Error::System("tell of cgroups in so many hierarchies".to_owned(), e))
        }
        _ => Ok(()),
    }
}

/// Takes the places in cgroups that the parent has for us; what is to be seen of them is left.
fn sit(init: &Init<'_>, channel: &Channel) -> Result<Vec<Named>> {
    let seats = expect(channel, "cgroups", |message| match message {
        Message::Seats(seats) => Some(seats),
        _ => None,
    })?;
    cgroup::enter(&seats.doors)?;
    if init.watched {
        channel.send(&Message::Entered).map_err(|e| Error::System("report cgroups".to_owned(), e))?;
    }
    Ok(seats.mounts)
}

/// Waits until a child is in its v1 cgroups and its namespaces, or has failed before.
fn await_entered(channel: &Channel) -> Result<()> {
    match channel.receive().map_err(|e| Error::System("read from the container".to_owned(), e))? {
        Some(Message::Failed { stage, errno }) => Err(Message::error(stage, errno)),
        // The first thing that it says, if all is well.
        _ => Ok(()),
    }
}

fn pair() -> Result<(Channel, Channel)> {
    Channel::pair().map_err(|e| Error::System("make a socket".to_owned(), e))
}

struct Running<'a> {
    pid: i32,
    pidfd: OwnedFd,
    channel: Channel,
    listener: Listener<'a>,
}

/// Tells the child that it is placed and waits for exec, for the gate, or for the error.
fn conclude(running: Running<'_>, placed: Result<()>) -> Result<Started> {
    let Running { pid, pidfd, channel, listener } = running;
    let outcome = placed.and_then(|()| {
        // A child that has failed already has said so; that is read below.
        let _ = channel.send(&Message::Placed);
        let mut terminal = None;
        loop {
            match channel.receive().map_err(|e| Error::System("read from the container".to_owned(), e))? {
                Some(Message::Terminal(fd)) => terminal = Some(fd),
                Some(Message::Failed { stage, errno }) => return Err(Message::error(stage, errno)),
                Some(Message::Ready) | None => return Ok(terminal),
                Some(Message::Listening(number)) => take_listener(pid, &pidfd, number, listener, &channel)?,
                Some(_) => {}
            }
        }
    });
    match outcome {
        Ok(terminal) => Ok(Started { pid, pidfd, terminal }),
        Err(error) => {
            let _ = rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL);
            let _ = rustix::process::waitid(
                rustix::process::WaitId::PidFd(pidfd.as_fd()),
                rustix::process::WaitIdOptions::EXITED,
            );
            Err(error)
        }
    }
}

/// Of all that a clone needs only a place in a cgroup is denied by access (cgroups(7), Delegation).
fn not_cloned(error: std::io::Error) -> Error {
    let denied = error.raw_os_error() == Some(libc::EACCES);
    Error::System(if denied { "clone into the cgroup" } else { "clone" }.to_owned(), error)
}

fn own_pid_namespace() -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::open("/proc/self/ns/pid", flags, Mode::empty())
        .map_err(failed(|| "open the own pid namespace".to_owned()))
}

fn enter_pid_namespace(namespace: BorrowedFd<'_>) -> Result<()> {
    move_into_link_name_space(namespace, Some(LinkNameSpaceType::ProcessID))
        .map_err(failed(|| "join the pid namespace".to_owned()))
}

/// Whether we could go back to our own namespaces: root of a user namespace may not where they are of one above.
fn may_return() -> bool {
    own_pid_namespace().and_then(|own| enter_pid_namespace(own.as_fd())).is_ok()
}

/// Runs a fork in another pid namespace: children are born where `setns` said, we stay. So joining a pid namespace needs
/// no second fork.
fn in_pid_namespace(
    namespace: Option<BorrowedFd<'_>>,
    fork: impl FnOnce() -> std::io::Result<Forked>,
) -> Result<Forked> {
    let Some(namespace) = namespace else { return fork().map_err(not_cloned) };
    let own = own_pid_namespace()?;
    enter_pid_namespace(namespace)?;
    let result = fork();
    if matches!(result, Ok(Forked::Child)) {
        return Ok(Forked::Child);
    }
    enter_pid_namespace(own.as_fd())?;
    // A namespace whose first process has ended takes no more.
    result.map_err(|e| match e.raw_os_error() {
        Some(libc::ENOMEM | libc::EINVAL) => Error::State("the container has ended".to_owned()),
        _ => not_cloned(e),
    })
}

fn take_listener(pid: i32, pidfd: &OwnedFd, number: i32, listener: Listener<'_>, channel: &Channel) -> Result<()> {
    let what = || "take over the seccomp listener".to_owned();
    let fd = rustix::process::pidfd_getfd(pidfd, number, rustix::process::PidfdGetfdFlags::empty());
    let fd = fd.map_err(failed(what))?;
    listener(pid, fd)?;
    // A process that does not wait for it has gone on.
    let _ = channel.send(&Message::Taken);
    Ok(())
}

/// Runs a fork whose child is born in a new time namespace: only who is not in it yet may set its clocks off.
fn in_new_time_namespace(offsets: Option<&str>, fork: impl FnOnce() -> Result<Forked>) -> Result<Forked> {
    let Some(offsets) = offsets else { return fork() };
    let what = || "make a time namespace".to_owned();
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let own = rustix::fs::open("/proc/self/ns/time", flags, Mode::empty()).map_err(failed(what))?;
    leave_for_time_namespace(offsets)?;
    let forked = fork();
    if !matches!(forked, Ok(Forked::Child)) {
        move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::Time))
            .map_err(failed(|| "return to the own time namespace".to_owned()))?;
    }
    forked
}

/// Children are born in a new time namespace from here on.
fn leave_for_time_namespace(offsets: &str) -> Result<()> {
    unshare(UnshareFlags::NEWTIME)?;
    if offsets.is_empty() {
        return Ok(());
    }
    std::fs::write("/proc/self/timens_offsets", offsets)
        .map_err(|e| Error::System("linux.timeOffsets: set".to_owned(), e))
}

/// Runs a fork in a user namespace, and in a pid namespace where one is given.
pub(crate) fn in_user_namespace(
    user: BorrowedFd<'_>,
    pid_namespace: Option<BorrowedFd<'_>>,
    new: u64,
) -> Result<Forked> {
    by_one_between(|| {
        enter_user_namespace(user, pid_namespace)?;
        fork_for_parent(new, None)
    })
}

/// Who has joined a user namespace cannot come back, nor who is root of one to a pid namespace above it: a process in
/// between does it, and its child is ours.
fn by_one_between(fork: impl FnOnce() -> Result<Forked>) -> Result<Forked> {
    let what = || "clone in the user namespace".to_owned();
    let (ours, theirs) = pair()?;
    let between = match sys::fork(0, None).map_err(not_cloned)? {
        Forked::Parent { pidfd, .. } => pidfd,
        Forked::Child => {
            drop(ours);
            return match fork() {
                Ok(Forked::Child) => Ok(Forked::Child),
                Ok(Forked::Parent { pid, pidfd }) => leave(&theirs, &Message::Born { pid, pidfd }),
                Err(e) => leave(&theirs, &Message::of(e)),
            };
        }
    };
    drop(theirs);
    let told = ours.receive();
    let _ = rustix::process::waitid(
        rustix::process::WaitId::PidFd(between.as_fd()),
        rustix::process::WaitIdOptions::EXITED,
    );
    match told.map_err(|e| Error::System(what(), e))? {
        Some(Message::Born { pid, pidfd }) => Ok(Forked::Parent { pid, pidfd }),
        Some(Message::Failed { stage, errno }) => Err(Message::error(stage, errno)),
        _ => Err(Error::State(format!("{}: no answer", what()))),
    }
}

/// Joins the other namespaces while we may: they can belong to a user namespace above the container's. Where we may not,
/// they belong to the container's, and are joined by whoever is in it.
fn cross(init: &Init<'_>, joined: &Cell<bool>) -> Result<Forked> {
    // While /proc is the host's.
    if let Some(offsets) = &init.new_time {
        leave_for_time_namespace(offsets)?;
    }
    joined.set(join_all(init).is_ok());
    if let Some(user) = init.user_namespace {
        enter_user_namespace(user, init.pid_namespace)?;
    } else if let Some(namespace) = init.pid_namespace {
        enter_pid_namespace(namespace)?;
    }
    fork_for_parent(init.new & BORN_IN, init.born_in)
}

fn join_all(init: &Init<'_>) -> Result<()> {
    init.join.iter().try_for_each(|(kind, namespace)| {
        move_into_link_name_space(namespace.as_fd(), Some(*kind)).map_err(failed(|| format!("join namespace {kind:?}")))
    })
}

fn enter_user_namespace(user: BorrowedFd<'_>, pid_namespace: Option<BorrowedFd<'_>>) -> Result<()> {
    move_into_link_name_space(user, Some(LinkNameSpaceType::User))
        .map_err(failed(|| "join the user namespace".to_owned()))?;
    pid_namespace.map_or(Ok(()), enter_pid_namespace)
}

fn fork_for_parent(new: u64, born_in: Option<BorrowedFd<'_>>) -> Result<Forked> {
    sys::fork(new | libc::CLONE_PARENT as u64, born_in).map_err(not_cloned)
}

fn leave(channel: &Channel, message: &Message) -> ! {
    let _ = channel.send(message);
    sys::exit_now(0)
}

/// The child's life: do the work, report what failed, end. Never returns into the parent's code.
fn run_child(channel: &Channel, work: impl FnOnce(&Channel) -> Error) -> ! {
    sys::reset_signals();
    let _ = channel.send(&Message::of(work(channel)));
    sys::exit_now(1)
}

fn run_init(
    init: &Init<'_>,
    labels: Option<Labels>,
    joined: bool,
    in_sight: bool,
    standard: [BorrowedFd<'_>; 3],
    channel: &Channel,
) -> Error {
    match build(init, labels, joined, in_sight, channel) {
        Ok(built) => built.enter(init.process, standard, channel, init.gate.as_ref().map(AsFd::as_fd), |env| {
            init.before_exec.map_or(Ok(()), |before_exec| before_exec(env))
        }),
        Err(e) => e,
    }
}

/// What the child has after building its world.
struct Built {
    slave: Option<OwnedFd>,
    /// What it is to be labelled with, and the /proc that takes it: from inside there may be none to trust.
    labels: Option<(Labels, OwnedFd)>,
}

impl Built {
    fn enter(
        self,
        process: &Prepared,
        standard: [BorrowedFd<'_>; 3],
        channel: &Channel,
        gate: Option<BorrowedFd<'_>>,
        before_exec: impl FnOnce(&[CString]) -> Result<()>,
    ) -> ! {
        let slave = self.slave.as_ref().map(|slave| [slave.as_fd(); 3]);
        process.enter(slave.unwrap_or(standard), channel, gate, self.labels.as_ref(), before_exec)
    }
}

fn build(init: &Init<'_>, labels: Option<Labels>, joined: bool, in_sight: bool, channel: &Channel) -> Result<Built> {
    // Its own session: no terminal of ours, and a terminal of its own can become the controlling one.
    rustix::process::setsid().map_err(failed(|| "setsid".to_owned()))?;
    if !in_sight {
        undumpable()?;
    }
    if init.user_map.is_some() {
        expect(channel, "id maps", |message| matches!(message, Message::Mapped).then_some(()))?;
    }
    if init.user_map.is_some() || init.user_namespace.is_some() {
        become_root()?;
    }
    if !joined {
        join_all(init)?;
    }
    // What it makes as root of its user namespace belongs to that.
    unshare(UnshareFlags::from_bits_retain(u32::try_from(init.new & !BORN_IN).unwrap_or_default()))?;
    if let Some(name) = &init.hostname {
        rustix::system::sethostname(name.as_bytes()).map_err(failed(|| "hostname: set".to_owned()))?;
    }
    if let Some(name) = &init.domainname {
        rustix::system::setdomainname(name.as_bytes()).map_err(failed(|| "domainname: set".to_owned()))?;
    }
    if init.new & NEW_NET != 0 {
        sys::loopback_up().map_err(|e| Error::System("bring the loopback up".to_owned(), e))?;
    }
    // Once, and as late as can be: the parent is making them.
    let mut unseated = Some(channel);
    let mut cgroups = || unseated.take().map_or_else(|| Ok(Vec::new()), |channel| sit(init, channel));
    let opened;
    let plan = match &init.rootfs {
        Files::Opened(plan) => plan,
        Files::OpenedInside(open) => {
            cgroups()?;
            opened = open()?;
            &opened
        }
    };
    let (root, console) = plan.build(init.process.terminal, &mut cgroups)?;
    cgroups()?;
    let slave = console.map(|(master, slave)| hand_over(init.process, master, slave, channel)).transpose()?;
    expect(channel, "cgroups", |message| matches!(message, Message::Placed).then_some(()))?;
    if !init.sysctls.is_empty() {
        // They may be of a device that a hook has brought.
        let proc = proc::private()?;
        init.sysctls.iter().try_for_each(|(name, value)| proc::write_sysctl(&proc, name, value))?;
    }
    let labels = with_proc(labels)?;
    if let Some(before_pivot) = init.before_pivot {
        // Hooks see the container's files at hand.
        rustix::process::fchdir(&root).map_err(failed(|| "enter the root".to_owned()))?;
        before_pivot()?;
    }
    plan.enter(&root)?;
    if init.new_cgroup {
        unshare(UnshareFlags::NEWCGROUP)?;
    }
    Ok(Built { slave, labels })
}

fn with_proc(labels: Option<Labels>) -> Result<Option<(Labels, OwnedFd)>> {
    labels.map(|labels| Ok((labels, proc::private()?))).transpose()
}

fn hand_over(process: &Prepared, master: OwnedFd, slave: OwnedFd, channel: &Channel) -> Result<OwnedFd> {
    if process.plain_newlines {
        let what = || "set up the terminal".to_owned();
        let mut modes = rustix::termios::tcgetattr(&slave).map_err(failed(what))?;
        modes.output_modes.remove(rustix::termios::OutputModes::ONLCR);
        rustix::termios::tcsetattr(&slave, rustix::termios::OptionalActions::Now, &modes).map_err(failed(what))?;
    }
    if let Some((rows, columns)) = process.window {
        let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&master, size).map_err(failed(|| "set the window size".to_owned()))?;
    }
    channel.send(&Message::Terminal(master)).map_err(|e| Error::System("hand over the terminal".to_owned(), e))?;
    Ok(slave)
}

fn run_joined(
    join: &Join<'_>,
    labels: Option<Labels>,
    namespaces: ThreadNameSpaceType,
    standard: [BorrowedFd<'_>; 3],
    channel: &Channel,
) -> Error {
    let prepare = || -> Result<Built> {
        cgroup::enter(join.doors)?;
        rustix::process::setsid().map_err(failed(|| "setsid".to_owned()))?;
        join.process.scheduling.begin()?;
        // Before we can be seen from inside (CVE-2019-5736).
        undumpable()?;
        let labels = with_proc(labels)?;
        move_into_thread_name_spaces(join.target, namespaces).map_err(failed(|| "join the namespaces".to_owned()))?;
        if join.user_namespace.is_some() {
            become_root()?;
        }
        if let Some(root) = join.root {
            rootfs::enter_below(root)?;
        }
        let mut slave = None;
        if join.process.terminal {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let root = rustix::fs::open("/", flags, Mode::empty()).map_err(failed(|| "open /".to_owned()))?;
            let (master, other) = devices::terminal(&resolve::Root::new(root))?;
            slave = Some(hand_over(join.process, master, other, channel)?);
        }
        expect(channel, "cgroups", |message| matches!(message, Message::Placed).then_some(()))?;
        Ok(Built { slave, labels })
    };
    match prepare() {
        Ok(built) => built.enter(join.process, standard, channel, None, |_| Ok(())),
        Err(e) => e,
    }
}

/// Waits for a message of the parent, for what is wanted of it; its end means the parent gave up.
fn expect<T>(channel: &Channel, what: &str, wanted: impl Fn(Message) -> Option<T>) -> Result<T> {
    loop {
        match channel.receive() {
            Ok(Some(message)) => {
                if let Some(wanted) = wanted(message) {
                    return Ok(wanted);
                }
            }
            Ok(None) => return Err(Error::State(format!("the parent left before {what}"))),
            Err(e) => return Err(Error::System(format!("wait for {what}"), e)),
        }
    }
}

fn undumpable() -> Result<()> {
    set_dumpable(DumpableBehavior::NotDumpable)
}

fn set_dumpable(behavior: DumpableBehavior) -> Result<()> {
    rustix::process::set_dumpable_behavior(behavior).map_err(failed(|| "become undumpable".to_owned()))
}

/// Root of a user namespace that has just been entered.
fn become_root() -> Result<()> {
    let what = || "become root of the user namespace".to_owned();
    let (uid, gid) = (rustix::fs::Uid::ROOT, rustix::fs::Gid::ROOT);
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(failed(what))?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(failed(what))?;
    // Changing the user has made us dumpable again.
    undumpable()
}

/// Whether the kernel would not let us.
pub(crate) fn is_refusal(error: &Error) -> bool {
    matches!(error, Error::System(_, e) if e.raw_os_error() == Some(libc::EPERM))
}

fn unshare(flags: UnshareFlags) -> Result<()> {
    sys::unshare(flags).map_err(failed(|| "make a namespace".to_owned()))
}
