//! Ways out: to nodes (log, exec, attach, port-forward), services and pods, all through one [`Dial`].
//!
//! `locate` says where a request goes (pure), `forward` sends it there over HTTP/1.1 and hands the answer back; an
//! upgraded connection is spliced byte for byte, whatever protocol it speaks.

mod dial;
mod forward;
mod locate;
mod options;
mod tls;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use api::StatusResult;
use async_trait::async_trait;
use http::{Request, Response};
use hyper::body::Incoming;

use crate::attributes::Attributes;
use crate::identity::{self, Identity};
use crate::parts::{Body, Connect, full};
use crate::request::Query;
use crate::view::View;

pub use dial::{Dial, Direct, Io};
use locate::{Location, Way};
pub(crate) use locate::{endpoint, rest};
pub(crate) use options::encode;

/// What connects: by group and resource.
pub type Connects = Vec<(&'static str, &'static str, Arc<dyn Connect>)>;

/// The ways of every subresource that connects, straight over TCP, with the identity's certificates.
pub fn connects(identity: &Identity) -> Result<Connects, identity::Error> {
    let ways = Arc::new(Ways { dial: Arc::new(Direct), tls: tls::Nodes::new(identity)?, turn: AtomicU64::new(0) });
    let one = |name, way| ("", name, Arc::new(Out { ways: Arc::clone(&ways), way }) as Arc<dyn Connect>);
    Ok(vec![
        one("pods/log", Way::Log),
        one("pods/exec", Way::Exec),
        one("pods/attach", Way::Attach),
        one("pods/portforward", Way::PortForward),
        one("pods/proxy", Way::Pod),
        one("services/proxy", Way::Service),
        one("nodes/proxy", Way::Node),
    ])
}

struct Ways {
    dial: Arc<dyn Dial>,
    tls: tls::Nodes,
    /// Spreads requests over the endpoints of a service.
    turn: AtomicU64,
}

struct Out {
    ways: Arc<Ways>,
    way: Way,
}

#[async_trait]
impl Connect for Out {
    async fn connect(
        &self,
        request: Request<Incoming>,
        attributes: &Attributes,
        view: &dyn View,
    ) -> StatusResult<Response<Body>> {
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let turn = self.ways.turn.fetch_add(1, Ordering::Relaxed);
        let asked = locate::Asked { attributes, uri: request.uri(), query: &query, view, turn };
        match locate::locate(self.way, &asked)? {
            Location::Nowhere => Ok(Response::new(full(""))),
            Location::Root(path) => Ok(redirect(&path)),
            Location::There(place) => forward::forward(&self.ways, self.way, &place, request).await,
        }
    }
}

/// To the same path with a slash at its end, so that relative links in the page work.
fn redirect(path: &str) -> Response<Body> {
    let mut response = Response::new(full(""));
    *response.status_mut() = http::StatusCode::MOVED_PERMANENTLY;
    if let Ok(path) = http::HeaderValue::try_from(path) {
        response.headers_mut().insert(http::header::LOCATION, path);
    }
    response
}
