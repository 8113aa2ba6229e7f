//! The agent as a program of its own, for tests: `agent run DIR INSTANCE SERVER [DEATHS]` and, for the pods that it
//! starts, `agent shim RUN_DIR`. With a folder DEATHS it kills itself at every step of every pod twice: the first time
//! that the step is to be done, and the first time that it is done but not noted.

use std::fs::File;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::OnceLock;

use k8s_openapi::api::core::v1::Pod;
use node_agent::{Config, Serving};
use node_plan::Step;
use rustix::process::{Signal, getpid, kill_process};

/// Where the deaths so far are kept.
static DEATHS: OnceLock<PathBuf> = OnceLock::new();

/// The node's address; whoever runs this has made the link.
const NODE_IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 7, 1));

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["shim", run_dir] => runtime_core::shim::main(Path::new(run_dir)),
        ["run", dir, instance, server, deaths @ ..] => {
            if let [deaths] = deaths {
                let _ = DEATHS.set(deaths.into());
            }
            match run(Path::new(dir), instance, server) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("{error}");
                    ExitCode::FAILURE
                }
            }
        }
        _ => ExitCode::from(2),
    }
}

#[tokio::main]
async fn run(dir: &Path, instance: &str, server: &str) -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let client = kube::Client::try_from(kube::Config::new(server.parse()?))?;
    Ok(node_agent::run(client, config(dir, instance)?, std::future::pending()).await?)
}

fn config(dir: &Path, instance: &str) -> Result<Config, Box<dyn std::error::Error>> {
    Ok(Config {
        instance: instance.into(),
        node_name: "n1".into(),
        node_ips: vec![NODE_IP],
        data_dir: dir.join("data"),
        run_dir: dir.join("run"),
        log_dir: dir.join("log"),
        images_dir: dir.join("images"),
        preload_dir: None,
        program: std::env::current_exe()?,
        cluster_dns: Vec::new(),
        cluster_domain: "cluster.local".into(),
        cluster_cidrs: vec!["10.244.0.0/16".parse()?],
        service_cidrs: vec!["10.96.0.0/16".parse()?],
        pod_cidrs: vec!["10.244.1.0/24".parse()?],
        mtu: 1500,
        max_pods: 250,
        grace_seconds: 40,
        labels: Default::default(),
        listen: (NODE_IP, 10250).into(),
        // Nobody asks it for logs or sessions.
        serving: Serving::Files { certificate: dir.join("none"), key: dir.join("none") },
        client_ca_pem: None,
        registries: Default::default(),
        version: "v1.37.2+trimtab".into(),
        on_step: DEATHS.get().map(|_| die as node_agent::OnStep),
    })
}

fn die(pod: &Pod, step: &Step, done: bool) {
    let name = format!("{}-{}-{}", pod.metadata.name.as_deref().unwrap_or_default(), key(step), u8::from(done));
    if DEATHS.get().is_some_and(|deaths| File::create_new(deaths.join(name)).is_ok()) {
        let _ = kill_process(getpid(), Signal::KILL);
        std::thread::park();
    }
}

/// The same for a step that is asked for again.
fn key(step: &Step) -> String {
    match step {
        Step::PullImage { container, attempt, .. } => format!("pull-{container}-{attempt}"),
        Step::StartContainer { container, attempt, .. } => format!("start-{container}-{attempt}"),
        Step::Resize { run, .. } => format!("resize-{run}"),
        Step::RunHook { run, which, .. } => format!("{which:?}-{run}"),
        Step::RunProbe { run, which, .. } => format!("{which:?}-{run}"),
        Step::Signal { run, signal, .. } => format!("signal-{signal}-{run}"),
        Step::RemoveRun { run, .. } => format!("remove-{run}"),
        Step::StopRun { run, .. } => format!("stop-{run}"),
        Step::AttachNetwork => "attach".into(),
        Step::MountVolumes => "mount".into(),
        Step::StartSandbox => "sandbox".into(),
        Step::Teardown => "teardown".into(),
        Step::Forget => "forget".into(),
        Step::Conclude(_) | Step::StopPod { .. } | Step::TellBackoff { .. } => "memory".into(),
    }
}
