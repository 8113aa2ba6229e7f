//! What load balancers ask: whether this node has endpoints of a service with the external policy `Local`
//! (`healthCheckNodePort`). Answers are kube-proxy's, `pkg/proxy/healthcheck`.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use api::ObjectName;
use http::{HeaderName, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use node_plan::services::Health;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};

use crate::agent::Agent;

/// Connections that a service's port takes at the same time, and how long each may take to ask.
const CONNECTIONS: usize = 64;
const TO_ASK: Duration = Duration::from_secs(10);
/// Connections that wait to be taken.
const BACKLOG: u32 = 64;

/// The ports that are open.
#[derive(Default)]
pub(crate) struct Answers(BTreeMap<ObjectName, Open>);

/// One service's port. It closes when this is dropped.
struct Open {
    port: u16,
    answer: watch::Sender<Answer>,
    task: AbortHandle,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What is answered now.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Answer {
    endpoints: usize,
    /// Whether the node's rules are as they should be.
    healthy: bool,
}

impl Answers {
    /// Opens, closes and updates ports. One that cannot be opened is told of in an event and tried again with the next
    /// change.
    pub(crate) fn set(&mut self, agent: &Agent, wanted: &BTreeMap<ObjectName, Health>, healthy: bool) {
        self.0.retain(|name, open| wanted.get(name).is_some_and(|health| health.port == open.port));
        for (name, health) in wanted {
            let answer = Answer { endpoints: health.endpoints, healthy };
            if let Some(open) = self.0.get(name) {
                open.answer.send_replace(answer);
                continue;
            }
            match open(&agent.config.node_ips, name, health.port, answer) {
                Ok(open) => {
                    self.0.insert(name.clone(), open);
                }
                Err(error) => {
                    let ObjectName { namespace, name } = name;
                    let (node, port) = (&agent.config.node_name, health.port);
                    let message = format!(
                        "node {node} failed to start healthcheck \"{namespace}/{name}\" on port {port}: {error}"
                    );
                    tracing::warn!("{message}");
                    agent.recorder.service(namespace, name, "FailedToStartServiceHealthcheck", &message);
                }
            }
        }
    }
}

fn open(ips: &[IpAddr], name: &ObjectName, port: u16, answer: Answer) -> std::io::Result<Open> {
    let (answer, answers) = watch::channel(answer);
    let mut listeners = Vec::new();
    for (v4, any) in [(true, IpAddr::from(Ipv4Addr::UNSPECIFIED)), (false, IpAddr::from(Ipv6Addr::UNSPECIFIED))] {
        if ips.iter().any(|ip| ip.is_ipv4() == v4) {
            listeners.push(listen(SocketAddr::new(any, port))?);
        }
    }
    let name = Arc::new(name.clone());
    let task = tokio::spawn(async move {
        let mut serving = JoinSet::new();
        for listener in listeners {
            serving.spawn(serve(listener, name.clone(), answers.clone()));
        }
        while serving.join_next().await.is_some() {}
    });
    Ok(Open { port, answer, task: task.abort_handle() })
}

fn listen(at: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if at.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    if at.is_ipv6() {
        rustix::net::sockopt::set_ipv6_v6only(&socket, true)?;
    }
    socket.bind(at)?;
    socket.listen(BACKLOG)
}

async fn serve(listener: TcpListener, name: Arc<ObjectName>, answers: watch::Receiver<Answer>) {
    let gate = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let Ok(permit) = gate.clone().acquire_owned().await else { return };
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let (name, answers) = (name.clone(), answers.clone());
                connections.spawn(async move {
                    converse(stream, &name, &answers).await;
                    drop(permit);
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn converse(stream: TcpStream, name: &ObjectName, answers: &watch::Receiver<Answer>) {
    let service = service_fn(|_| {
        let response = respond(name, *answers.borrow());
        async move { Ok::<_, Infallible>(response) }
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(TO_ASK);
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

/// Whatever is asked.
fn respond(name: &ObjectName, answer: Answer) -> Response<Full<Bytes>> {
    let Answer { endpoints, healthy } = answer;
    let text = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": {:?},\n\t\t\"name\": {:?}\n\t}},\n\t\"localEndpoints\": {endpoints},\n\t\
         \"serviceProxyHealthy\": {healthy}\n}}",
        name.namespace, name.name
    );
    let mut response = Response::new(Full::new(text.into()));
    let fine = endpoints > 0 && healthy;
    *response.status_mut() = if fine { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
    headers.insert(HeaderName::from_static("x-load-balancing-endpoint-weight"), endpoints.into());
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_balancer_is_told_how_many_endpoints_are_here() {
        let name = ObjectName { namespace: "shop".into(), name: "web".into() };
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let at = listener.local_addr().unwrap();
        let (answer, answers) = watch::channel(Answer { endpoints: 2, healthy: true });
        let server = tokio::spawn(serve(listener, Arc::new(name), answers));
        let ask = || async {
            let mut stream = TcpStream::connect(at).await.unwrap();
            stream.write_all(b"GET /anything HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            text
        };
        let body = "{\n\t\"service\": {\n\t\t\"namespace\": \"shop\",\n\t\t\"name\": \"web\"\n\t},\n\t\"localEndpoints\": 2,\n\t\
                    \"serviceProxyHealthy\": true\n}";
        let text = ask().await;
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with(body), "{text}");
        assert!(text.contains("\r\nx-load-balancing-endpoint-weight: 2\r\n"), "{text}");
        assert!(text.contains("\r\nx-content-type-options: nosniff\r\n"), "{text}");
        answer.send_replace(Answer { endpoints: 0, healthy: true });
        assert!(ask().await.starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
        answer.send_replace(Answer { endpoints: 2, healthy: false });
        assert!(ask().await.starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
        server.abort();
    }
}
