//! The shim's loop: signals, requests and streams, one at a time.

mod exec;

use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use oci_spec::runtime::{LinuxNamespaceType, LinuxResources};
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::fs::{FileType, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions};

use super::container::{self, Container, Ends, Output, Pumped};
use super::log::{Log, Stream};
use super::pause::{self, Pause};
use crate::cgroup::{Group, Host};
use crate::channel::{receive_any_with_fds, send_with_fds};
use crate::launch::{self, Files, Init, NEW_MOUNT, NEW_PID};
use crate::pod::{ContainerState, PROTOCOL_VERSION, PodConfig};
use crate::process::Prepared;
use crate::protocol::{self, Call, ContainerFile, Failure, MAX_MESSAGE_BYTES, Reply, Request, check_id};
use crate::rootfs::{self, Sources, Users};
use crate::seccomp::Cache;
use crate::{Error, Result, cgroup, failed, files, sys};

/// Containers of one pod, ended ones included.
const MAX_CONTAINERS: usize = 1024;
/// Connections and subscriptions of agents.
const MAX_CLIENTS: usize = 256;
/// Bytes read from a stream at once.
const READ_BYTES: usize = 64 << 10;

/// Most shims do nothing most of the time: then they keep as little memory as they can.
const REST_AFTER: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

const LISTENER: u64 = 0;
const SIGNALS: u64 = 1;

/// What a token of the event queue stands for.
#[derive(Debug)]
enum Source {
    Client(OwnedFd),
    Output {
        container: String,
        stream: Stream,
    },
    /// The end of a process that its caller no longer waits for.
    Joined(i32),
}

/// The shim.
#[derive(Debug)]
pub(super) struct Server {
    run_dir: PathBuf,
    config: PodConfig,
    host: Host,
    group: Group,
    /// The pod's user namespace.
    users: Option<OwnedFd>,
    pause: Option<Pause>,
    containers: BTreeMap<String, Container>,
    /// Processes beside containers' first ones, by pid.
    execs: BTreeMap<i32, exec::Joined>,
    filters: Cache,
    subscribers: Vec<OwnedFd>,
    queue: OwnedFd,
    listener: OwnedFd,
    signals: OwnedFd,
    sources: BTreeMap<u64, Source>,
    next_token: u64,
    buffer: Vec<u8>,
    done: bool,
}

impl Server {
    /// Makes the pod's cgroup and opens the socket.
    pub(super) fn new(run_dir: &Path, config: PodConfig, users: Option<OwnedFd>) -> Result<Self> {
        let what = || "make the event queue".to_owned();
        let signals = sys::signal_fd(&[libc::SIGCHLD]).map_err(|e| Error::System(what(), e))?;
        let host = Host::discover()?;
        let group = host.create(&config.cgroup, Some(&config.resources))?;
        let shared = config.shared_pid && !config.host_pid;
        let pause = if shared { Some(start_pause(&host, &config, users.as_ref())?) } else { None };
        let listener = protocol::serve(run_dir)?;
        let queue = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed(what))?;
        for (fd, token) in [(&listener, LISTENER), (&signals, SIGNALS)] {
            epoll::add(&queue, fd, epoll::EventData::new_u64(token), epoll::EventFlags::IN).map_err(failed(what))?;
        }
        Ok(Self {
            run_dir: run_dir.to_owned(),
            config,
            host,
            group,
            users,
            pause,
            containers: BTreeMap::new(),
            execs: BTreeMap::new(),
            filters: Cache::default(),
            subscribers: Vec::new(),
            queue,
            listener,
            signals,
            sources: BTreeMap::new(),
            next_token: SIGNALS + 1,
            buffer: vec![0; READ_BYTES],
            done: false,
        })
    }

    /// Runs until the pod is shut down.
    pub(super) fn run(&mut self) -> Result<()> {
        let mut at_rest = false;
        while !self.done {
            let mut space = [MaybeUninit::<epoll::Event>::uninit(); 32];
            let patience = if at_rest { None } else { Some(&REST_AFTER) };
            let tokens: Vec<u64> = match epoll::wait(&self.queue, &mut space, patience) {
                Ok((events, _)) => events.iter().map(|event| event.data.u64()).collect(),
                Err(Errno::INTR) => continue,
                Err(e) => return Err(failed(|| "wait for events".to_owned())(e)),
            };
            at_rest = tokens.is_empty();
            if at_rest {
                sys::rest();
            }
            for token in tokens {
                self.handle(token);
            }
        }
        Ok(())
    }

    fn handle(&mut self, token: u64) {
        match (token, self.sources.remove(&token)) {
            (LISTENER, _) => self.accept(),
            (SIGNALS, _) => self.reap(),
            (_, Some(Source::Client(client))) => self.serve(token, client),
            (_, Some(Source::Output { container, stream })) => self.pump(token, container, stream),
            (_, Some(Source::Joined(pid))) => self.left(pid),
            (_, None) => {}
        }
    }

    fn watch(&mut self, fd: BorrowedFd<'_>, source: Source) -> Result<u64> {
        let token = self.next_token;
        self.next_token += 1;
        epoll::add(&self.queue, fd, epoll::EventData::new_u64(token), epoll::EventFlags::IN)
            .map_err(failed(|| "watch a descriptor".to_owned()))?;
        self.sources.insert(token, source);
        Ok(token)
    }

    fn accept(&mut self) {
        let Ok(client) = accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) else { return };
        let clients = self.sources.values().filter(|s| matches!(s, Source::Client(_))).count();
        let trusted = rustix::net::sockopt::socket_peercred(&client).is_ok_and(|peer| peer.uid.is_root());
        if clients >= MAX_CLIENTS || !trusted {
            return;
        }
        protocol::widen(client.as_fd());
        let token = self.next_token;
        self.next_token += 1;
        let data = epoll::EventData::new_u64(token);
        if epoll::add(&self.queue, &client, data, epoll::EventFlags::IN).is_ok() {
            self.sources.insert(token, Source::Client(client));
        }
    }

    /// One request. Whatever a client says, the worst that happens is an error for it.
    fn serve(&mut self, token: u64, client: OwnedFd) {
        let message = match receive_any_with_fds(client.as_fd(), MAX_MESSAGE_BYTES) {
            Ok((message, _)) if !message.is_empty() => message,
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                self.sources.insert(token, Source::Client(client));
                return;
            }
            _ => return,
        };
        let result = serde_json::from_slice::<Request>(&message)
            .map_err(|e| Error::Invalid(format!("request: {e}")))
            .and_then(|request| self.call(request.call));
        let (reply, fds) = match result {
            Ok((value, fds)) => (Reply::Done(value), fds),
            Err(error) => (Reply::Failed(Failure::from(error)), Vec::new()),
        };
        let bytes = serde_json::to_vec(&reply).unwrap_or_default();
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        if send_with_fds(client.as_fd(), &bytes, &fds).is_ok() && !self.done {
            self.sources.insert(token, Source::Client(client));
        }
    }

    fn call(&mut self, call: Call) -> Result<(serde_json::Value, Vec<OwnedFd>)> {
        let plain = |value: serde_json::Value| Ok((value, Vec::new()));
        match call {
            Call::Hello => plain(PROTOCOL_VERSION.into()),
            Call::Start { container } => plain(json(&self.start(&container)?)?),
            Call::Containers => plain(json(&self.containers.values().map(|c| &c.state).collect::<Vec<_>>())?),
            Call::Signal { container, signal, all } => plain(json(&self.signal(&container, signal, all)?)?),
            Call::Remove { container } => plain(json(&self.remove(&container)?)?),
            Call::Exec { config } => Ok((serde_json::Value::Null, self.exec(&config)?)),
            Call::Attach { container, stdin } => {
                let (parts, fds) = self.container(&container)?.attach(stdin)?;
                Ok((json(&parts)?, fds))
            }
            Call::ReopenLog { container } => {
                let reopened = self.container(&container)?.log.reopen();
                plain(json(&reopened.map_err(|e| Error::System("reopen the log".to_owned(), e))?)?)
            }
            Call::Update { container, resources } => plain(json(&self.update(container.as_deref(), &resources)?)?),
            Call::Stats { container } => {
                let group = match &container {
                    Some(id) => &self.containers.get(id).ok_or_else(|| Error::NotFound(id.clone()))?.group,
                    None => &self.group,
                };
                plain(json(&self.host.stats(group))?)
            }
            Call::Network => Ok((serde_json::Value::Null, vec![own_network()?])),
            Call::Changes => Ok((serde_json::Value::Null, vec![self.subscribe()?])),
            Call::Shutdown => plain(json(&self.shutdown()?)?),
        }
    }

    fn container(&mut self, id: &str) -> Result<&mut Container> {
        self.containers.get_mut(id).ok_or_else(|| Error::NotFound(id.to_owned()))
    }

    fn start(&mut self, id: &str) -> Result<ContainerState> {
        check_id(id)?;
        if self.containers.contains_key(id) {
            return Err(Error::State(format!("container {id} exists already")));
        }
        if self.containers.len() >= MAX_CONTAINERS {
            return Err(Error::State(format!("{MAX_CONTAINERS} containers exist already")));
        }
        let file: ContainerFile = files::read(&container::config_path(&self.run_dir, id))?;
        if file.version > PROTOCOL_VERSION || file.config.id != id {
            return Err(Error::Invalid(format!(
                "{id}.json: of version {} and container {}",
                file.version, file.config.id
            )));
        }
        let process = container::prepare(&file.config, &mut self.filters, None, None, self.users.is_some())?;
        let linux = file.config.spec.linux().as_ref();
        let path = linux.and_then(|l| l.cgroups_path().clone()).unwrap_or_else(|| self.config.cgroup.join(id));
        let group = Rc::new(self.host.begin(&path)?);
        let started = self.start_in(file.config, &process, &group);
        let started = started.and_then(|(container, outputs)| self.adopt(container, outputs));
        started.inspect_err(|_| {
            let _ = self.host.kill(&group).and_then(|()| self.host.remove(&group));
        })
    }

    /// Starts the first process in a cgroup of which there is as much as it can be born in.
    fn start_in(
        &self,
        config: crate::pod::ContainerConfig,
        process: &Prepared,
        group: &Rc<Group>,
    ) -> Result<(Container, Vec<(Stream, OwnedFd)>)> {
        let users = self.users();
        let linux = config.spec.linux().as_ref();
        let listed = linux.and_then(|l| l.namespaces().as_deref()).unwrap_or_default();
        let plan = rootfs::plan(
            &config.spec,
            Sources {
                rootfs: Some(&config.rootfs),
                bundle: Path::new("/"),
                // Root of a user namespace does not come as far as the run directory.
                attach_to: &if users.is_some() { PathBuf::from("/tmp") } else { self.run_dir.join("root") },
                users,
                own_mounts: true,
                pivot: true,
                cgroups: None,
            },
        )?;
        let target = listed.iter().find(|n| n.typ() == LinuxNamespaceType::Pid).and_then(|n| n.path().as_ref());
        let target = target.map(|path| {
            let opened = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
            opened.map_err(failed(|| format!("linux.namespaces: open {}", path.display())))
        });
        let target = target.transpose()?;
        let pid_namespace = target.as_ref().or(self.pause.as_ref().map(|p| &p.namespace)).map(AsFd::as_fd);
        let own_pid_namespace = pid_namespace.is_none() && !self.config.host_pid;
        let log = Log::open(&config.log_path, config.log_max_bytes, config.log_files);
        let log = log.map_err(|e| Error::System(format!("open log {}", config.log_path.display()), e))?;
        let ends = Ends::new(&config, process.terminal)?;
        self.give(&ends.child, process.uid())?;
        let oom_kills_before = std::cell::Cell::new(0);
        let make_cgroups = || {
            self.host.finish(group, linux.and_then(|l| l.resources().as_ref()))?;
            // As kubelets have it on v2: a container without one of its processes is of no use.
            self.host.end_as_one(group);
            oom_kills_before.set(self.host.oom_kills(group));
            self.host.seats(group, rootfs::shows_cgroups(&config.spec))
        };
        let init = Init {
            process,
            rootfs: Files::Opened(plan),
            new: NEW_MOUNT | if own_pid_namespace { NEW_PID } else { 0 },
            new_cgroup: listed.iter().any(|n| n.typ() == LinuxNamespaceType::Cgroup && n.path().is_none()),
            new_time: None,
            join: Vec::new(),
            pid_namespace,
            user_map: None,
            user_namespace: users.map(|users| users.namespace),
            hostname: None,
            domainname: None,
            sysctls: Vec::new(),
            // Root of a user namespace may not put a child into a cgroup of ours.
            born_in: self.host.birthplace(group).filter(|_| users.is_none()),
            cgroups: &make_cgroups,
            watched: false,
            gate: None,
            before_pivot: None,
            before_exec: None,
            listener: &|pid, fd| container::notify(&config, &self.run_dir, pid, &fd),
        };
        let started = launch::start(&init, ends.child(), |pid| match init.born_in {
            Some(_) => Ok(()),
            None => self.host.place_unified(group, pid),
        })?;
        let Ends { stdin, mut outputs, .. } = ends;
        if let Some(terminal) = &started.terminal {
            let copy = terminal.try_clone().map_err(|e| Error::System("copy the terminal".to_owned(), e))?;
            outputs.push((Stream::Stdout, copy));
        }
        let state = ContainerState { id: config.id.clone(), pid: started.pid, started_at: files::now(), exit: None };
        let container = Container {
            group: Rc::clone(group),
            config,
            state,
            pidfd: started.pidfd,
            own_pid_namespace,
            outputs: Vec::new(),
            log,
            stdin,
            terminal: started.terminal,
            oom_kills_before: oom_kills_before.get(),
        };
        Ok((container, outputs))
    }

    fn users(&self) -> Option<Users<'_>> {
        let (_, root, _) = self.config.user_map?;
        self.users.as_ref().map(|namespace| Users { namespace: namespace.as_fd(), root })
    }

    /// Gives pipes to a user of the pod's user namespace: it cannot take them itself.
    fn give(&self, ends: &[OwnedFd], uid: u32) -> Result<()> {
        let Some((_, root, length)) = self.config.user_map else { return Ok(()) };
        let owner = root.checked_add(uid).filter(|_| uid < length);
        let owner = owner.ok_or_else(|| Error::Invalid(format!("process.user.uid: {uid} is not mapped")))?;
        for end in ends {
            let stat = rustix::fs::fstat(end).map_err(failed(|| "look at a stream".to_owned()))?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Fifo {
                rustix::fs::fchown(end, Some(Uid::from_raw(owner)), None)
                    .map_err(failed(|| "give the standard streams to the user".to_owned()))?;
            }
        }
        Ok(())
    }

    fn adopt(&mut self, mut container: Container, outputs: Vec<(Stream, OwnedFd)>) -> Result<ContainerState> {
        let (state, id) = (container.state.clone(), container.state.id.clone());
        for (stream, fd) in outputs {
            let output = Output::new(stream, fd)?;
            self.watch(output.fd.as_fd(), Source::Output { container: id.clone(), stream })?;
            container.outputs.push(output);
        }
        files::write(&container::state_path(&self.run_dir, &id), &state)?;
        self.containers.insert(id, container);
        self.notify();
        Ok(state)
    }

    fn signal(&self, id: &str, signal: i32, all: bool) -> Result<()> {
        let container = self.containers.get(id).ok_or_else(|| Error::NotFound(id.to_owned()))?;
        let bad = || Error::Invalid(format!("signal {signal} is unknown"));
        let signal = Signal::from_named_raw(signal).ok_or_else(bad)?;
        if all {
            let pids = self.host.processes(&container.group)?;
            pids.into_iter().for_each(|pid| cgroup::signal(pid, signal.as_raw()));
            return Ok(());
        }
        if container.state.exit.is_some() {
            return Ok(());
        }
        match rustix::process::pidfd_send_signal(&container.pidfd, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(e) => Err(failed(|| format!("signal container {id}"))(e)),
        }
    }

    fn remove(&mut self, id: &str) -> Result<()> {
        let Some(container) = self.containers.get(id) else { return Ok(()) };
        if container.state.exit.is_none() {
            return Err(Error::State(format!("container {id} is running")));
        }
        self.host.kill(&container.group)?;
        self.host.remove(&container.group)?;
        self.containers.remove(id);
        self.sources.retain(|_, source| !matches!(source, Source::Output { container, .. } if container == id));
        for path in [container::state_path(&self.run_dir, id), container::config_path(&self.run_dir, id)] {
            match std::fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::System(format!("remove {}", path.display()), e));
                }
                _ => {}
            }
        }
        self.notify();
        Ok(())
    }

    fn update(&mut self, id: Option<&str>, resources: &LinuxResources) -> Result<()> {
        match id {
            None => self.host.apply(&self.group, resources),
            Some(id) => {
                let container = self.containers.get(id).ok_or_else(|| Error::NotFound(id.to_owned()))?;
                self.host.apply(&container.group, resources)
            }
        }
    }

    fn subscribe(&mut self) -> Result<OwnedFd> {
        // Those of an agent that was killed are told nothing any more: no change may come for days.
        self.subscribers.retain(|subscriber| !abandoned(subscriber));
        if self.subscribers.len() >= MAX_CLIENTS {
            return Err(Error::State(format!("{MAX_CLIENTS} subscriptions exist already")));
        }
        let (read, write) =
            pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).map_err(failed(|| "make a pipe".to_owned()))?;
        self.subscribers.push(write);
        Ok(read)
    }

    /// Tells subscribers; one that is told already and has not read is told enough.
    fn notify(&mut self) {
        self.subscribers.retain(|subscriber| matches!(rustix::io::write(subscriber, &[1]), Ok(_) | Err(Errno::AGAIN)));
    }

    fn pump(&mut self, token: u64, id: String, stream: Stream) {
        let Some(container) = self.containers.get_mut(&id) else { return };
        let Some(at) = container.outputs.iter().position(|o| o.stream == stream) else { return };
        let Some(output) = container.outputs.get_mut(at) else { return };
        match output.pump(&mut container.log, &mut self.buffer) {
            Pumped::Empty | Pumped::More => {
                self.sources.insert(token, Source::Output { container: id, stream });
            }
            Pumped::Closed => {
                let _ = epoll::delete(&self.queue, &output.fd);
                container.outputs.remove(at);
            }
        }
    }

    /// Collects every child that has ended.
    fn reap(&mut self) {
        // One record may stand for several signals; what counts is whom waitpid names.
        let mut record = [0; 128];
        while rustix::io::read(&self.signals, &mut record).is_ok() {}
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let signal = status.terminating_signal();
            let code = status.exit_status().unwrap_or_else(|| 128 + signal.unwrap_or_default());
            self.ended(pid, code, signal);
        }
    }

    fn ended(&mut self, pid: Pid, code: i32, signal: Option<i32>) {
        let pid = pid.as_raw_pid();
        if let Some(joined) = self.execs.remove(&pid) {
            self.sources.remove(&joined.token);
            joined.tell(&self.queue, code);
            return;
        }
        let running = |c: &&mut Container| c.state.pid == pid && c.state.exit.is_none();
        let Some(container) = self.containers.values_mut().find(running) else { return };
        if !container.own_pid_namespace {
            // Others of it may live on; nobody waits for them.
            for pid in self.host.processes(&container.group).unwrap_or_default() {
                cgroup::signal(pid, libc::SIGKILL);
            }
        }
        container.drain(&mut self.buffer);
        let oom_kills = self.host.oom_kills(&container.group);
        container.finish(code, signal, oom_kills, &self.run_dir);
        self.notify();
    }

    fn shutdown(&mut self) -> Result<()> {
        for container in self.containers.values() {
            self.host.kill(&container.group)?;
        }
        self.host.kill(&self.group)?;
        self.reap();
        for container in self.containers.values() {
            self.host.remove(&container.group)?;
        }
        self.host.remove(&self.group)?;
        self.host.remove_empty_parents(&self.group);
        self.done = true;
        Ok(())
    }
}

fn start_pause(host: &Host, config: &PodConfig, users: Option<&OwnedFd>) -> Result<Pause> {
    let group = host.create(&config.cgroup.join("pause"), None)?;
    pause::start(users.map(AsFd::as_fd), host, &group)
}

/// Whether nobody can read what is written to a pipe.
fn abandoned(pipe: &OwnedFd) -> bool {
    let mut look = [PollFd::new(pipe, PollFlags::empty())];
    poll(&mut look, Some(&Timespec::default())).is_ok()
        && look.iter().any(|look| look.revents().contains(PollFlags::ERR))
}

/// The network namespace that we are in, which is the pod's.
fn own_network() -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::open("/proc/self/ns/net", flags, Mode::empty()).map_err(failed(|| "open the network".to_owned()))
}

fn json(value: &impl serde::Serialize) -> Result<serde_json::Value> {
    serde_json::to_value(value).map_err(|e| Error::State(e.to_string()))
}
