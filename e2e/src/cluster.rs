//! A cluster of real processes: every node is a network namespace of its own, all on one bridge.

use std::env;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::leak::Instance;
use crate::story::Place;

/// A process has this long to say that it is ready.
const READY: Duration = Duration::from_secs(120);

/// Namespaces on one bridge, and what runs in them.
pub struct Cluster {
    name: String,
    dir: tempfile::TempDir,
    /// The first runs `trimtab up`, the others agents.
    pub nodes: Vec<Node>,
    etcd: Option<Child>,
}

/// One machine of the cluster.
pub struct Node {
    /// Its name in the cluster.
    pub name: String,
    /// Its network namespace.
    pub namespace: String,
    /// Its address on the bridge.
    pub address: String,
    /// Its instance's data.
    pub data: PathBuf,
    processes: Vec<Process>,
}

struct Process {
    child: Child,
    lines: Receiver<String>,
}

impl Cluster {
    /// Starts `count` nodes, on the embedded store or on a real etcd (`store` is then its program).
    pub fn start(name: &str, subnet: u8, count: usize, store: Option<&str>) -> Result<Self> {
        let mut cluster = Self::machines(name, subnet, count)?;
        if let Some(program) = store {
            cluster.start_etcd(Path::new(program))?;
        }
        cluster.start_first()?;
        for at in 1..count {
            cluster.start_agent(at)?;
        }
        Ok(cluster)
    }

    /// Machines on which nothing runs yet.
    pub fn machines(name: &str, subnet: u8, count: usize) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("tt-e2e-").tempdir()?;
        let name = format!("tte-{name}-{}", std::process::id());
        let mut cluster = Self { name, dir, nodes: Vec::new(), etcd: None };
        cluster.fabric()?;
        for at in 1..=count {
            cluster.add_node(subnet, at)?;
        }
        cluster.import_busybox()?;
        Ok(cluster)
    }

    /// Starts the first node's whole cluster (again).
    pub fn start_first(&mut self) -> Result<()> {
        let store = self.store();
        let node = self.nodes.first_mut().context("no node")?;
        let mut command = node.trimtab("up");
        command.args(["--no-quickstart", "--node-monitor-grace-period", "10", "--node-ip", &node.address]);
        command.args(["--node-name", &node.name, "--store", store]);
        node.ready(command)
    }

    /// Starts a second instance on the first node's machine: a whole cluster of its own, with the quick start.
    pub fn start_beside(&mut self) -> Result<()> {
        let first = self.nodes.first().context("no node")?;
        let (namespace, address) = (first.namespace.clone(), first.address.clone());
        let data = self.dir.path().join("beside");
        let mut node = Node { name: "beside".into(), namespace, address, data, processes: Vec::new() };
        let mut command = node.trimtab("up");
        command.args(["--listen", "127.0.0.1:7443", "--agent-port", "11250", "--node-name", &node.name]);
        command.args(["--service-cidr", "10.97.0.0/16", "--cluster-cidr", "10.245.0.0/16", "--node-ip", &node.address]);
        let done = node.ready(command);
        self.nodes.push(node);
        done
    }

    /// Starts one part of a control plane on the first node, as a process of its own. Returns its pid.
    pub fn start_part(&mut self, part: &str, arguments: &str) -> Result<u32> {
        self.start_program(&program(), &format!("{part} {arguments}"))
    }

    /// Starts any program on the first node. Returns its pid.
    pub fn start_program(&mut self, program: &Path, arguments: &str) -> Result<u32> {
        let arguments = self.expanded(arguments)?;
        let node = self.nodes.first_mut().context("no node")?;
        let mut command = node.within();
        command.arg(program).args(arguments.split_whitespace());
        let process = Process::start(command, &node.data.with_extension("log"))?;
        let pid = process.child.id();
        node.processes.push(process);
        Ok(pid)
    }

    /// Tells one of the first node's processes to end, and waits for it.
    pub fn end(&mut self, pid: u32) -> Result<()> {
        let node = self.nodes.first_mut().context("no node")?;
        let at = node.processes.iter().position(|process| process.child.id() == pid).context("no such process")?;
        run(&["kill", "-TERM", &pid.to_string()])?;
        node.processes.remove(at).child.wait()?;
        Ok(())
    }

    fn store(&self) -> &'static str {
        if self.etcd.is_some() { "etcd=http://127.0.0.1:2379" } else { "embedded" }
    }

    /// Starts the API server alone, on the first node, and waits until it is ready.
    pub fn start_api_server(&mut self) -> Result<()> {
        let store = self.store();
        let node = self.nodes.first_mut().context("no node")?;
        let mut command = node.trimtab("apiserver");
        command.args(["--node-ip", &node.address, "--store", store]);
        node.ready(command)
    }

    /// Starts the agent of a node under the identity of a kubeconfig.
    pub fn start_node_agent(&mut self, at: usize, arguments: &str) -> Result<()> {
        let arguments = self.expanded(arguments)?;
        let node = self.nodes.get_mut(at).context("no such node")?;
        let mut command = node.trimtab("node-agent");
        command.args(arguments.split_whitespace()).args(["--node-name", &node.name, "--node-ip", &node.address]);
        node.ready(command)
    }

    /// `$DATA` is the first node's data, `$WORK` the cluster's own folder.
    fn expanded(&self, arguments: &str) -> Result<String> {
        let data = self.nodes.first().context("no node")?.data.display().to_string();
        Ok(arguments.replace("$DATA", &data).replace("$WORK", &self.dir.path().display().to_string()))
    }

    /// Starts the agent of a node (again).
    pub fn start_agent(&mut self, at: usize) -> Result<()> {
        let token = self.output("trimtab token create --data-dir $DATA")?;
        let server = format!("https://{}:6443", self.nodes.first().context("no node")?.address);
        let node = self.nodes.get_mut(at).context("no such node")?;
        let mut command = node.trimtab("agent");
        command.args(["--server", &server, "--token", token.trim(), "--node-name", &node.name]);
        command.args(["--node-ip", &node.address]);
        node.ready(command)
    }

    /// The standard output of a shell line that must succeed.
    pub fn output(&self, line: &str) -> Result<String> {
        let output = self.shell(line)?;
        if !output.status.success() {
            bail!("{line}: {}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Ends every process and takes away what each instance made.
    pub fn down(&mut self) -> Result<()> {
        self.nodes.iter_mut().rev().try_for_each(Node::down)
    }

    /// What threads of any process said when they panicked.
    pub fn panics(&self) -> Vec<String> {
        let logs = self.nodes.iter().map(|node| std::fs::read_to_string(node.data.with_extension("log")));
        let said = |log: &str| {
            let lines: Vec<&str> = log.lines().collect();
            let from = |at: usize| lines.get(at..(at + 24).min(lines.len())).unwrap_or_default().join("\n");
            (0..lines.len()).filter(|at| lines[*at].contains("panicked at")).map(from).collect::<Vec<_>>()
        };
        logs.flatten().flat_map(|log| said(&log)).collect()
    }

    /// Starts etcd beside the first node, which waits for it itself.
    pub fn start_etcd(&mut self, program: &Path) -> Result<()> {
        let node = self.nodes.first().context("no node")?;
        let log = File::create(self.dir.path().join("etcd.log"))?;
        let mut command = node.within();
        command.arg(program).arg("--data-dir").arg(self.dir.path().join("etcd"));
        self.etcd = Some(command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?);
        Ok(())
    }

    /// Puts an image with a shell into every node's directory of images to be imported at start.
    fn import_busybox(&self) -> Result<()> {
        let archive = busybox_archive(self.dir.path())?;
        for node in &self.nodes {
            std::fs::create_dir_all(node.data.join("preload"))?;
            std::fs::copy(&archive, node.data.join("preload/busybox.tar"))?;
        }
        Ok(())
    }

    fn fabric(&self) -> Result<()> {
        run(&["ip", "netns", "add", &self.name])?;
        run(&["ip", "-n", &self.name, "link", "add", "fabric", "type", "bridge"])?;
        run(&["ip", "-n", &self.name, "link", "set", "fabric", "up"])
    }

    fn add_node(&mut self, subnet: u8, at: usize) -> Result<()> {
        let namespace = format!("{}-{at}", self.name);
        let address = format!("10.89.{subnet}.{at}");
        let (fabric, port) = (self.name.clone(), format!("port{at}"));
        run(&["ip", "netns", "add", &namespace])?;
        let data = self.dir.path().join(format!("n{at}"));
        let node = Node { name: format!("n{at}"), namespace, address, data, processes: Vec::new() };
        run(&[
            "ip",
            "-n",
            &fabric,
            "link",
            "add",
            &port,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            &node.namespace,
        ])?;
        run(&["ip", "-n", &fabric, "link", "set", &port, "master", "fabric", "up"])?;
        run(&["ip", "-n", &node.namespace, "link", "set", "lo", "up"])?;
        run(&["ip", "-n", &node.namespace, "addr", "add", &format!("{}/24", node.address), "dev", "eth0"])?;
        run(&["ip", "-n", &node.namespace, "link", "set", "eth0", "up"])?;
        self.nodes.push(node);
        Ok(())
    }

    /// Cuts a node off from all others, or joins it again.
    pub fn cut(&self, at: usize, cut: bool) -> Result<()> {
        let state = if cut { "down" } else { "up" };
        run(&["ip", "-n", &self.name, "link", "set", &format!("port{}", at + 1), state])
    }
}

impl Place for Cluster {
    /// On the first node.
    fn shell(&self, line: &str) -> Result<Output> {
        let node = self.nodes.first().context("no node")?;
        let mut command = node.within();
        command.args(["bash", "-c", line]);
        command.env("KUBECONFIG", node.data.join("admin.kubeconfig")).env("DATA", &node.data);
        command.env("NODE_IP", &node.address).env("WORK", self.dir.path()).env("PROGRAMS", programs());
        // Where kubectl and helm keep what they learnt.
        command.env("HOME", self.dir.path());
        Ok(at_hand(&mut command)?.current_dir(stories()).stdin(Stdio::null()).output()?)
    }

    fn logs(&self) -> String {
        let tail = |node: &Node| format!("--- {}\n{}\n", node.name, last_lines(&node.data.with_extension("log")));
        self.nodes.iter().map(tail).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            let _ = node.signal("KILL");
            let _ = node.trimtab("down").arg("--purge").output();
        }
        // Only now: two instances may share one.
        for node in &self.nodes {
            let _ = run(&["ip", "netns", "del", &node.namespace]);
        }
        if let Some(mut etcd) = self.etcd.take() {
            let _ = etcd.kill();
            let _ = etcd.wait();
        }
        let _ = run(&["ip", "netns", "del", &self.name]);
    }
}

impl Node {
    /// Sends a signal to the node's processes, the last one first, and waits for their end.
    pub fn signal(&mut self, signal: &str) -> Result<()> {
        for mut process in self.processes.drain(..).rev() {
            run(&["kill", &format!("-{signal}"), &process.child.id().to_string()])?;
            process.child.wait()?;
        }
        Ok(())
    }

    /// Ends the node's processes and takes away what its instance made.
    pub fn down(&mut self) -> Result<()> {
        self.signal("TERM")?;
        let output = self.trimtab("down").arg("--purge").output()?;
        if !output.status.success() {
            bail!("down on {}: {}", self.name, String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    /// What its instance holds on this machine.
    pub fn instance(&self) -> Result<Instance> {
        Ok(Instance::open(&self.data, &self.namespace)?)
    }

    /// The most memory that its first process ever had, in KiB.
    pub fn peak_kib(&self) -> Result<u64> {
        let pid = self.processes.first().context("nothing runs")?.child.id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    /// Starts a process and waits until it is ready.
    fn ready(&mut self, command: Command) -> Result<()> {
        let log = self.data.with_extension("log");
        let process = Process::start(command, &log)?;
        process.ready().with_context(|| std::fs::read_to_string(&log).unwrap_or_default())?;
        self.processes.push(process);
        Ok(())
    }

    /// A command in the node's network namespace. (`ip netns exec` would hide the cgroups below /sys.)
    pub fn within(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.namespace));
        command
    }

    fn trimtab(&self, verb: &str) -> Command {
        let mut command = self.within();
        command.arg(program()).arg(verb).arg("--data-dir").arg(&self.data);
        command
    }
}

impl Process {
    /// Starts it, with its standard error in a file.
    fn start(mut command: Command, log: &Path) -> Result<Self> {
        let errors = File::options().create(true).append(true).open(log)?;
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors).spawn()?;
        let stdout = child.stdout.take().context("no standard output")?;
        let (sender, lines) = channel();
        thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).all(|line| sender.send(line).is_ok())
        });
        Ok(Self { child, lines })
    }

    /// Waits for its line `ready`.
    fn ready(&self) -> Result<()> {
        loop {
            match self.lines.recv_timeout(READY) {
                Ok(line) if line == "ready" => return Ok(()),
                Ok(_) => {}
                Err(_) => bail!("the process did not become ready"),
            }
        }
    }
}

/// The program under test.
pub fn program() -> PathBuf {
    match env::var_os("TRIMTAB") {
        Some(path) => path.into(),
        None => env::current_exe().ok().and_then(beside).unwrap_or_else(|| "trimtab".into()),
    }
}

/// `target/<triple>/debug/deps/test` -> `target/<triple>/debug/trimtab`.
fn beside(test: PathBuf) -> Option<PathBuf> {
    Some(test.parent()?.parent()?.join("trimtab"))
}

/// The examples of this crate: programs that play a part in stories.
fn programs() -> PathBuf {
    let profile = env::current_exe().ok().and_then(|own| Some(own.parent()?.parent()?.to_path_buf()));
    profile.unwrap_or_default().join("examples")
}

/// Puts the program under test on the command's PATH.
pub(crate) fn at_hand(command: &mut Command) -> Result<&mut Command> {
    let bin = program().parent().map(Path::to_path_buf).unwrap_or_default();
    let path = env::var_os("PATH").unwrap_or_default();
    Ok(command.env("PATH", env::join_paths([bin].into_iter().chain(env::split_paths(&path)))?))
}

/// The end of a log.
pub fn last_lines(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(40);
    lines.get(from..).unwrap_or_default().join("\n")
}

/// Makes an image with a shell, as `docker save` would write it.
pub fn busybox_archive(dir: &Path) -> Result<PathBuf> {
    let root = dir.join("busybox");
    let script = "mkdir -p $R/bin $R/tmp && cp /bin/busybox $R/bin/ && for a in $(/bin/busybox --list); do \
         [ $a = busybox ] || ln -sf busybox $R/bin/$a; done && tar -C $R -cf $L .";
    let (layer, archive) = (dir.join("layer.tar"), dir.join("busybox.tar"));
    shell(script, &[("R", &root), ("L", &layer)])?;
    shell(DOCKER_ARCHIVE, &[("L", &layer), ("OUT", &archive), ("W", &dir.join("archive"))])?;
    Ok(archive)
}

/// The folder of stories.
pub fn stories() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("stories")
}

/// What `docker save` would write of one layer.
const DOCKER_ARCHIVE: &str = r#"mkdir -p $W && cp $L $W/layer.tar && cd $W && D=$(sha256sum layer.tar | cut -d' ' -f1) &&
printf '{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/bin"],"Cmd":["sh"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' $D > config.json &&
printf '[{"Config":"config.json","RepoTags":["trimtab.local/busybox:latest"],"Layers":["layer.tar"]}]' > manifest.json &&
tar -cf $OUT config.json manifest.json layer.tar"#;

fn shell(script: &str, variables: &[(&str, &Path)]) -> Result<()> {
    let output = Command::new("bash").args(["-ec", script]).envs(variables.iter().copied()).output()?;
    if !output.status.success() {
        bail!("{script}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// Runs a program that must succeed.
pub(crate) fn run(words: &[&str]) -> Result<()> {
    let (program, arguments) = words.split_first().context("no command")?;
    let output = Command::new(program).args(arguments).output().with_context(|| format!("start {program}"))?;
    if !output.status.success() {
        bail!("{}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
