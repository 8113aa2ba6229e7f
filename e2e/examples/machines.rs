//! The cluster on machines of their own (`cargo xtask e2e vm`): a server and two agents, each with Debian's cloud kernel
//! and nothing but cgroup v2. The server's power is cut during 1,000 writes; an agent's network is cut.

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use e2e::machine::Machines;
use e2e::story::{self, Place};
use e2e::writes;

const WRITES: usize = 1000;
/// The power is cut when so many are acknowledged.
const CUT_AT: usize = 300;
const WRITES_WITHIN: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    let began = Instant::now();
    match run(began) {
        Ok(()) => {
            println!("machines: passed in {} s", began.elapsed().as_secs());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:?}");
            ExitCode::FAILURE
        }
    }
}

fn run(began: Instant) -> Result<()> {
    let said = |what: &str| println!("{:>4} s  {what}", began.elapsed().as_secs());
    let mut machines = Machines::build(3)?;
    said("three disks are made");
    for at in 0..3 {
        machines.start(at)?;
        said("a machine is up and its node Ready");
    }
    told(&machines, &["basics", "machines"])?;
    said("the cluster does its work");
    power_cut(&mut machines)?;
    said("the server lost its power during writes: all that was acknowledged is there, nothing is invented");
    told(&machines, &["after-restart"])?;
    machines.cut(2, true)?;
    told(&machines, &["node-cut-off"])?;
    machines.cut(2, false)?;
    told(&machines, &["node-back"])?;
    said("a node was cut off and came back");
    Ok(())
}

fn told(machines: &Machines, names: &[&str]) -> Result<()> {
    for name in names {
        let file = e2e::cluster::stories().join(format!("{name}.story"));
        story::tell(machines, &file).with_context(|| machines.logs())?;
    }
    Ok(())
}

fn power_cut(machines: &mut Machines) -> Result<()> {
    let count = writes::Count::default();
    let counted = count.clone();
    let run =
        writes::within(&machines.namespace, machines.kubeconfig(), move |client| writes::run(client, WRITES, counted));
    let began = Instant::now();
    while count.acknowledged() < CUT_AT && !run.is_finished() {
        ensure!(began.elapsed() < WRITES_WITHIN, "only {} writes were acknowledged", count.acknowledged());
        thread::park_timeout(Duration::from_millis(50));
    }
    machines.cut_power(0)?;
    machines.start(0)?;
    run.join().map_err(|_| anyhow!("the writers panicked"))?.with_context(|| machines.logs())
}
