//! Service rules in the kernel of this network namespace, without an API server: `rules DIR SERVICES ENDPOINTS CHANGES`
//! writes so many services with so many endpoints each, then moves one endpoint of one service again and again. Prints a
//! line `WHAT NANOSECONDS` for each transaction and removes everything. `cargo xtask bench` is the way to call it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Instant;

use network::{Config, Frontend, FrontendAddress, Network, Protocol};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [dir, services, endpoints, changes] = words.as_slice() else {
        return Err("usage: rules DIR SERVICES ENDPOINTS CHANGES".into());
    };
    let (services, endpoints, changes): (u32, u32, u32) = (services.parse()?, endpoints.parse()?, changes.parse()?);
    let dir = PathBuf::from(dir);
    let run_dir = dir.join("netns");
    let config = Config {
        instance: "bench".into(),
        run_dir: run_dir.clone(),
        data_dir: dir.join("data"),
        pod_cidrs: vec!["10.244.0.0/24".parse()?],
        cluster_cidrs: vec!["10.244.0.0/16".parse()?],
        service_cidrs: vec!["10.96.0.0/12".parse()?],
        node_ips: vec!["10.244.0.1".parse()?],
        mtu: 1500,
    };
    let network = Network::open(config).await?;
    let all: Vec<Frontend> = (0..services).map(|at| service(at, endpoints)).collect();
    let start = Instant::now();
    network.set_frontends(all).await?;
    println!("load {}", start.elapsed().as_nanos());
    for at in 0..changes {
        let mut changed = service(services / 2, endpoints);
        if let Some(endpoint) = changed.endpoints.first_mut() {
            endpoint.set_port(9000 + (at % 2) as u16);
        }
        let start = Instant::now();
        network.change_frontends(vec![changed], Vec::new()).await?;
        println!("change {}", start.elapsed().as_nanos());
    }
    Network::purge("bench", &run_dir).await?;
    Ok(())
}

fn service(at: u32, endpoints: u32) -> Frontend {
    let ip = |from: Ipv4Addr, number: u32| IpAddr::from(Ipv4Addr::from_bits(from.to_bits() + number));
    let address = SocketAddr::new(ip(Ipv4Addr::new(10, 96, 0, 1), at), 80);
    let endpoint = |number| SocketAddr::new(ip(Ipv4Addr::new(10, 128, 0, 1), at * endpoints + number), 8080);
    Frontend {
        endpoints: (0..endpoints).map(endpoint).collect(),
        ..Frontend::new(FrontendAddress::Ip(address), Protocol::Tcp)
    }
}
