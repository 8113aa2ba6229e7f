//! Probes, and the commands and requests that hooks share with them.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Pod, Probe};
use node_plan::ProbeKind;
use node_plan::member::member;
use node_plan::observed::Observed;
use node_plan::services::container_port;
use runtime_core::pod::ExecConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;

use super::{Performer, grpc};
use crate::pipes::Pipe;
use crate::{blocking, chain};

/// How much of a command's output or an answer's body is kept.
const OUTPUT_BYTES: usize = 10 << 10;

/// Runs a probe once: whether it succeeded, and what there is to say if not.
pub(super) async fn run(
    p: &Performer,
    pod: &Pod,
    seen: &Observed,
    container: &str,
    run: &str,
    which: ProbeKind,
) -> (bool, String) {
    let Some(member) = member(pod, container) else { return (true, String::new()) };
    let Some(probe) = node_plan::probe::spec(&member.container, which) else { return (true, String::new()) };
    let seconds = u64::try_from(probe.timeout_seconds.unwrap_or(1)).unwrap_or(1).max(1);
    let ip = pod_ip(seen);
    let work = one(p, &member.container, probe, run, &ip);
    match tokio::time::timeout(Duration::from_secs(seconds), work).await {
        Ok(Ok(())) => (true, String::new()),
        Ok(Err(output)) => (false, output),
        Err(_) => (false, timed_out(&member.container, probe, &ip, seconds)),
    }
}

/// The pod's first address.
pub(super) fn pod_ip(seen: &Observed) -> String {
    seen.network.done().and_then(|ips| ips.first()).map(ToString::to_string).unwrap_or_default()
}

fn timed_out(container: &Container, probe: &Probe, ip: &str, seconds: u64) -> String {
    if let Some(exec) = &probe.exec {
        let command = exec.command.clone().unwrap_or_default().join(" ");
        return format!("command timed out: \"{command}\" timed out after {seconds}s");
    }
    if let Some(get) = &probe.http_get {
        let url = url(container, get, ip).map(|(url, ..)| url).unwrap_or_default();
        return format!("Get \"{url}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)");
    }
    if probe.grpc.is_some() {
        return format!("timeout: health rpc did not complete within {seconds}s");
    }
    let port = probe.tcp_socket.as_ref().and_then(|t| container_port(container, &t.port)).unwrap_or(0);
    format!("dial tcp {}: i/o timeout", authority(ip, port))
}

async fn one(p: &Performer, container: &Container, probe: &Probe, run: &str, ip: &str) -> Result<(), String> {
    if let Some(command) = &probe.exec {
        let (code, output) = exec(p, run, command.command.clone().unwrap_or_default()).await?;
        return if code == 0 { Ok(()) } else { Err(output) };
    }
    if let Some(get) = &probe.http_get {
        return http(container, get, ip).await.map(drop);
    }
    if let Some(tcp) = &probe.tcp_socket {
        let port = container_port(container, &tcp.port).ok_or("invalid port")?;
        let host = tcp.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(ip);
        return connect(host, port).await.map(drop);
    }
    if let Some(action) = &probe.grpc {
        let port = u16::try_from(action.port).map_err(|_| "invalid port")?;
        let at = authority(ip, port);
        let stream = client::dial(ip, port)
            .await
            .map_err(|error| format!("error: failed to connect service at {at:?}: {}", dial_error(&at, &error)))?;
        return grpc::check(stream, &at, action.service.as_deref().unwrap_or_default()).await;
    }
    Err("missing probe handler".into())
}

/// Runs a command in a container: its exit code, and the beginning of its output.
pub(super) async fn exec(p: &Performer, run: &str, args: Vec<String>) -> Result<(i32, String), String> {
    let (shim, container) = (p.shim()?, run.to_owned());
    let config = ExecConfig { container, args, tty: false, stdin: false };
    let streams = blocking(move || shim.exec(&config).map_err(|error| chain(&error))).await?;
    let exit = streams.exit.ok_or("no exit descriptor")?;
    let (out, err, code) = tokio::join!(read(streams.stdout), read(streams.stderr), read(Some(exit)));
    let code = code.get(..4).and_then(|b| b.try_into().ok()).map_or(-1, i32::from_le_bytes);
    Ok((code, String::from_utf8_lossy(&[out, err].concat()).into_owned()))
}

/// Reads to the end, keeps the beginning.
async fn read(fd: Option<OwnedFd>) -> Vec<u8> {
    let mut kept = Vec::new();
    let Some(Ok(mut pipe)) = fd.map(Pipe::new) else { return kept };
    let mut buffer = [0_u8; 4096];
    while let Ok(n @ 1..) = pipe.read(&mut buffer).await {
        let room = OUTPUT_BYTES.saturating_sub(kept.len());
        kept.extend_from_slice(buffer.get(..n.min(room)).unwrap_or_default());
    }
    kept
}

fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    client::dial(host, port).await.map_err(|error| dial_error(&authority(host, port), &error))
}

/// A failed dial in Go's words.
fn dial_error(at: &str, error: &io::Error) -> String {
    let why = match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".into(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".into(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".into(),
        io::ErrorKind::TimedOut => "i/o timeout".into(),
        _ => error.to_string(),
    };
    format!("dial tcp {at}: {why}")
}

/// The URL, host and port of a request.
fn url(container: &Container, get: &HTTPGetAction, ip: &str) -> Result<(String, String, u16), String> {
    let port = container_port(container, &get.port).ok_or("invalid port")?;
    let host = get.host.clone().filter(|h| !h.is_empty()).unwrap_or_else(|| ip.into());
    let scheme = get.scheme.as_deref().unwrap_or("HTTP").to_ascii_lowercase();
    let path = get.path.as_deref().unwrap_or("/");
    let slash = if path.starts_with('/') { "" } else { "/" };
    Ok((format!("{scheme}://{}{slash}{path}", authority(&host, port)), host, port))
}

/// A GET; codes from 200 to 399 are success. Answers the beginning of the body.
pub(super) async fn http(container: &Container, get: &HTTPGetAction, ip: &str) -> Result<String, String> {
    let (url, host, port) = url(container, get, ip)?;
    let failed = |why: String| format!("Get \"{url}\": {why}");
    let stream = connect(&host, port).await.map_err(failed)?;
    let request = request(get, &url, &authority(&host, port)).map_err(|e| failed(e.to_string()))?;
    if url.starts_with("https:") {
        let name = rustls_pki_types::ServerName::try_from(host).map_err(|e| failed(e.to_string()))?;
        let tls = tokio_rustls::TlsConnector::from(Arc::new(trusting()?));
        let stream = tls.connect(name, stream).await.map_err(|e| failed(e.to_string()))?;
        return ask(stream, request).await.map_err(|e| e.text(failed));
    }
    ask(stream, request).await.map_err(|e| e.text(failed))
}

fn request(get: &HTTPGetAction, url: &str, host: &str) -> Result<http::Request<Empty<Bytes>>, http::Error> {
    let path = url.splitn(4, '/').nth(3).unwrap_or_default();
    let own = get.http_headers.clone().unwrap_or_default();
    let has = |name: &str| own.iter().any(|h| h.name.eq_ignore_ascii_case(name));
    let mut request = http::Request::get(format!("/{path}"));
    for (name, value) in [("host", host), ("user-agent", "kube-probe/1.37"), ("accept", "*/*"), ("connection", "close")]
    {
        if !has(name) {
            request = request.header(name, value);
        }
    }
    for header in &own {
        request = request.header(&header.name, &header.value);
    }
    request.body(Empty::new())
}

/// Why an HTTP probe failed: no answer, or a wrong one.
enum Failure {
    Transport(String),
    Status(u16),
}

impl Failure {
    fn text(self, transport: impl Fn(String) -> String) -> String {
        match self {
            Self::Transport(why) => transport(why),
            Self::Status(code) => format!("HTTP probe failed with statuscode: {code}"),
        }
    }
}

async fn ask<S>(stream: S, request: http::Request<Empty<Bytes>>) -> Result<String, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |error: hyper::Error| Failure::Transport(chain(&error));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let driver = tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(failed);
    let result = match answer {
        Ok(answer) if (200..400).contains(&answer.status().as_u16()) => {
            let mut body = answer.into_body();
            let mut text = Vec::new();
            while let Some(Ok(frame)) = body.frame().await {
                let data = frame.into_data().unwrap_or_default();
                let room = OUTPUT_BYTES.saturating_sub(text.len());
                text.extend_from_slice(data.get(..data.len().min(room)).unwrap_or_default());
                if room == 0 {
                    break;
                }
            }
            Ok(String::from_utf8_lossy(&text).into_owned())
        }
        Ok(answer) => Err(Failure::Status(answer.status().as_u16())),
        Err(error) => Err(error),
    };
    driver.abort();
    result
}

/// Probes trust any certificate, as kubelet's do: they ask whether the server answers, not who it is.
fn trusting() -> Result<rustls::ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(provider)))
        .with_no_client_auth();
    Ok(config)
}

#[derive(Debug)]
struct AnyServer(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &[rustls_pki_types::CertificateDer<'_>],
        _: &rustls_pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls_pki_types::UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &rustls_pki_types::CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &rustls_pki_types::CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
