//! Runs all controllers against any API server: `controllers --kubeconfig F [--only NAME,...]`.
//! A trial tool: the `trimtab` binary is the real thing.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let args: Vec<String> = std::env::args().collect();
    let value = |flag: &str| args.iter().position(|a| a == flag).and_then(|i| args.get(i + 1)).cloned();
    let kubeconfig = kube::config::Kubeconfig::read_from(value("--kubeconfig").unwrap_or_default())?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?;
    let client = kube::Client::try_from(config)?;

    let only: Option<Vec<String>> = value("--only").map(|v| v.split(',').map(str::to_owned).collect());
    let mut options = controller::Options::default();
    if let Some(seconds) = value("--node-grace").and_then(|s| s.parse().ok()) {
        options.node_grace = Duration::from_secs(seconds);
    }
    if let Some(path) = value("--ca") {
        options.root_ca = std::fs::read_to_string(path)?;
    }
    options.cluster_cidrs = value("--cluster-cidr").into_iter().collect();
    let mut parts = driver::Parts { controllers: controller::all(&options), ..driver::Parts::default() };
    parts.controllers.retain(|c| only.as_ref().is_none_or(|only| only.iter().any(|n| n == c.name())));
    let mut config = driver::Config::default();
    if let (Some(certificate), Some(key)) = (value("--ca"), value("--ca-key")) {
        let (certificate, key) = (std::fs::read_to_string(certificate)?, std::fs::read_to_string(key)?);
        let signer = driver::CaSigner::from_pem(&certificate, &key, Duration::from_secs(365 * 86_400))?;
        config.signer = Some(std::sync::Arc::new(signer));
    }
    if let Some(identity) = value("--identity") {
        config.lease = Some(driver::Lease::new("trimtab-controllers-trial", &identity));
    }
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    tokio::spawn(async move {
        let _ = tokio::signal::ctrl_c().await;
        stop.cancel();
    });
    driver::run(client, parts, config, shutdown).await?;
    Ok(())
}
