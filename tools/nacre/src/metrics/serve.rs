//! HTTP on a unix socket and on a port of the loopback interface.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;

use tiny_http::{Header, Listener, Method, Request, Response, Server};

use super::MetricsError;
use super::collect::Collector;

const CONTENT_TYPE: &[u8] = b"text/plain; version=0.0.4; charset=utf-8";

/// Serves until the process ends.
///
/// # Errors
/// A place can't be served.
pub fn serve(collector: &Collector, socket: &Path, port: Option<u16>) -> Result<(), MetricsError> {
    let unix = server(socket.display().to_string(), Listener::Unix(bind(socket)?))?;
    let tcp = port.map(|port| {
        let place = format!("127.0.0.1:{port}");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .map_err(|source| MetricsError::Listen { place: place.clone(), source })?;
        server(place, Listener::Tcp(listener))
    });
    let tcp = tcp.transpose()?;
    thread::scope(|scope| {
        if let Some(tcp) = &tcp {
            scope.spawn(move || answer(tcp, collector));
        }
        answer(&unix, collector);
    });
    Ok(())
}

fn server(place: String, listener: Listener) -> Result<Server, MetricsError> {
    Server::from_listener(listener, None)
        .map_err(|error| MetricsError::Listen { place, source: std::io::Error::other(error) })
}

/// A socket for root alone. One that nobody serves any more is replaced.
fn bind(path: &Path) -> Result<UnixListener, MetricsError> {
    let failed = |source| MetricsError::Listen { place: path.display().to_string(), source };
    if UnixStream::connect(path).is_ok() {
        return Err(MetricsError::Served { path: path.into() });
    }
    let _ = fs::remove_file(path);
    let listener = UnixListener::bind(path).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

fn answer(server: &Server, collector: &Collector) {
    for request in server.incoming_requests() {
        // A client that went does not matter.
        let _ = match status(&request) {
            200 => {
                let response = Response::from_string(collector.text());
                let header = Header::from_bytes(&b"Content-Type"[..], CONTENT_TYPE);
                request.respond(match header {
                    Ok(header) => response.with_header(header),
                    Err(()) => response,
                })
            }
            status => request.respond(Response::from_string("see /metrics\n").with_status_code(status)),
        };
    }
}

fn status(request: &Request) -> u16 {
    match (request.method(), request.url().split('?').next()) {
        (Method::Get, Some("/" | "/metrics")) => 200,
        (Method::Get, _) => 404,
        _ => 405,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::path::PathBuf;
    use std::sync::Arc;

    use super::*;

    fn get(path: &PathBuf, what: &str) -> String {
        let mut stream = UnixStream::connect(path).unwrap();
        write!(stream, "{what} HTTP/1.0\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn the_numbers_are_served_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("m.sock");
        let listener = bind(&socket).unwrap();
        assert!(matches!(bind(&socket), Err(MetricsError::Served { .. })));
        let server = Arc::new(server("here".into(), Listener::Unix(listener)).unwrap());
        let collector = Collector::new(folder.path(), &folder.path().join("none"));
        thread::scope(|scope| {
            scope.spawn(|| answer(&server, &collector));
            let text = get(&socket, "GET /metrics");
            assert!(text.starts_with("HTTP/1.0 200") && text.contains("version=0.0.4"), "{text}");
            assert!(text.contains("nacre_pods{state=\"running\"} 0\n"), "{text}");
            assert!(get(&socket, "GET /etc").starts_with("HTTP/1.0 404"));
            assert!(get(&socket, "DELETE /metrics").starts_with("HTTP/1.0 405"));
            server.unblock();
        });
        drop(server);
        assert!(bind(&socket).is_ok());
    }
}
