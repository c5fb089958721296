//! A client of Envoy's admin interface.

mod socket;
pub mod statistics;

use std::fmt::{self, Display};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use ureq::config::Config;
use ureq::unversioned::resolver::DefaultResolver;
use ureq::Agent;

use crate::output::Error;
use socket::SocketConnector;
use statistics::Sample;

/// The timeout of a request: long enough for a busy main thread, short enough for a user.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Bounds a response. A page for a thousand endpoints has a few megabytes.
const MAX_PAGE_BYTES: u64 = 256 << 20;

/// The address that Envoy's documentation uses, and the demo's bootstrap.
pub const DEFAULT: &str = "http://127.0.0.1:9901";

/// The admin interface, or a listener that exposes its `/stats/prometheus`.
#[derive(Clone)]
pub struct Admin {
    agent: Agent,
    /// The URL that paths are appended to.
    base: String,
    /// The address as the user gave it.
    address: String,
}

/// Where an admin interface listens.
#[derive(Debug, PartialEq)]
enum Place {
    Url(String),
    Socket(PathBuf),
}

impl Place {
    /// Parses `http://host:port`, `host:port`, `unix:PATH` or the path of a socket.
    fn parse(address: &str) -> Result<Self, String> {
        if let Some(path) = address.strip_prefix("unix:") {
            // `unix:///run/…` is how gRPC writes it.
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path {
                "" => Err("no path after unix:".to_owned()),
                path => Ok(Self::Socket(path.into())),
            };
        }
        if address.contains("://") {
            return Ok(Self::Url(address.trim_end_matches('/').to_owned()));
        }
        let host = address.trim_end_matches('/');
        let is_path = host.contains('/') || Path::new(address).exists();
        match (is_path, host) {
            (_, "") => {
                Err("expected http://HOST:PORT, HOST:PORT, unix:PATH or a socket".to_owned())
            }
            (true, _) => Ok(Self::Socket(address.into())),
            (false, host) => Ok(Self::Url(format!("http://{host}"))),
        }
    }
}

impl FromStr for Admin {
    type Err = String;

    fn from_str(address: &str) -> Result<Self, String> {
        let (agent, base) = match Place::parse(address)? {
            Place::Url(base) => (Agent::new_with_config(config()), base),
            Place::Socket(path) => {
                let config = Config::builder()
                    .timeout_global(Some(REQUEST_TIMEOUT))
                    // A proxy of the environment does not reach a socket.
                    .proxy(None)
                    .build();
                let connector = SocketConnector(path);
                let agent = Agent::with_parts(config, connector, DefaultResolver::default());
                (agent, "http://127.0.0.1".to_owned())
            }
        };
        Ok(Self {
            agent,
            base,
            address: address.to_owned(),
        })
    }
}

impl Display for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

impl Admin {
    /// Returns one of its pages.
    pub fn get(&self, path: &str) -> Result<Vec<u8>, Error> {
        let page = fetch(&self.agent, &format!("{}{path}", self.base));
        page.map_err(|error| self.error(path, &error))
    }

    /// Returns one of its pages; `None` if this is a listener that does not expose it.
    pub fn get_exposed(&self, path: &str) -> Result<Option<Vec<u8>>, Error> {
        match fetch(&self.agent, &format!("{}{path}", self.base)) {
            Err(ureq::Error::StatusCode(403 | 404)) => Ok(None),
            Err(error) => Err(self.error(path, &error)),
            Ok(page) => Ok(Some(page)),
        }
    }

    /// Returns the page with all statistics.
    pub fn statistics_page(&self) -> Result<String, Error> {
        let page = self.get("/stats/prometheus")?;
        let page = String::from_utf8_lossy(&page).into_owned();
        // Every Envoy has statistics with this prefix.
        match page.lines().any(|line| line.starts_with("envoy_")) {
            true => Ok(page),
            false => {
                Err(self
                    .unexpected("/stats/prometheus has status 200 and none of Envoy's statistics"))
            }
        }
    }

    /// Returns the filter's statistics.
    pub fn statistics(&self) -> Result<Sample, Error> {
        let sample = Sample::parse(&self.statistics_page()?, Instant::now());
        match sample.is_empty() {
            true => Err(self.without_filter()),
            false => Ok(sample),
        }
    }

    /// Returns the error of an Envoy without statistics of the filter.
    pub fn without_filter(&self) -> Error {
        Error::new(format!(
            "{self}: this Envoy has no epp-wasm statistics; check that it loads the filter, that the filter \
             has been running for a second, and that stats_tags are set as in envoy/envoy.yaml"
        ))
    }

    fn error(&self, path: &str, error: &ureq::Error) -> Error {
        let found = match error {
            ureq::Error::StatusCode(code @ 500..) => format!(
                "{path} has status {code} instead of 200: a proxy responds that cannot reach the admin interface"
            ),
            ureq::Error::StatusCode(code) => format!(
                "{path} has status {code} instead of 200: this is not Envoy's admin interface"
            ),
            error => error.to_string(),
        };
        self.unexpected(&found)
    }

    fn unexpected(&self, found: &str) -> Error {
        Error::new(format!(
            "{self}: {found}; expected the address of Envoy's admin interface, such as {DEFAULT} or \
             unix:/run/envoy/admin.sock, or of a listener that exposes its /stats/prometheus; `admin` in the bootstrap has the address"
        ))
    }
}

fn config() -> Config {
    Config::builder()
        .timeout_global(Some(REQUEST_TIMEOUT))
        .build()
}

/// Returns the body of the response to a GET.
pub fn get(url: &str) -> Result<Vec<u8>, ureq::Error> {
    fetch(&Agent::new_with_config(config()), url)
}

fn fetch(agent: &Agent, url: &str) -> Result<Vec<u8>, ureq::Error> {
    let mut response = agent.get(url).call()?;
    response
        .body_mut()
        .with_config()
        .limit(MAX_PAGE_BYTES)
        .read_to_vec()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    #[test]
    fn what_is_not_an_admin_interface_is_told_with_what_it_responds() {
        let error = |response: &'static str| {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let server = thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 1024]);
                stream.write_all(response.as_bytes()).unwrap();
            });
            let admin: Admin = address.parse().unwrap();
            let error = admin.statistics_page().unwrap_err().to_string();
            server.join().unwrap();
            assert!(
                error.contains("expected the address of Envoy's admin interface"),
                "{error}"
            );
            error
        };
        let head = "content-length: 2\r\nconnection: close\r\n\r\nno";
        for (status, found) in [
            (
                "503 Service Unavailable",
                "has status 503 instead of 200: a proxy",
            ),
            (
                "404 Not Found",
                "has status 404 instead of 200: this is not",
            ),
            ("200 OK", "has status 200 and none of Envoy's statistics"),
        ] {
            let response = format!("HTTP/1.1 {status}\r\n{head}");
            let error = error(response.leak());
            assert!(error.contains(found), "{error}");
        }
    }

    #[test]
    fn an_address_is_a_url_or_a_socket() {
        let url = |url: &str| Ok(Place::Url(url.to_owned()));
        let socket = |path: &str| Ok(Place::Socket(path.into()));
        for (address, expected) in [
            ("http://10.0.0.1:9901/", url("http://10.0.0.1:9901")),
            ("localhost:9901", url("http://localhost:9901")),
            ("[::1]:9901/", url("http://[::1]:9901")),
            ("unix:/run/a.sock", socket("/run/a.sock")),
            ("unix:///run/a.sock", socket("/run/a.sock")),
            ("unix:a.sock", socket("a.sock")),
            ("/run/a.sock", socket("/run/a.sock")),
            ("./a.sock", socket("./a.sock")),
            // It exists, as seen from the crate's folder.
            ("Cargo.toml", socket("Cargo.toml")),
        ] {
            assert_eq!(Place::parse(address), expected, "{address}");
        }
        for address in ["", "/", "unix:", "unix://"] {
            assert!(Place::parse(address).is_err(), "{address}");
        }
    }

    /// Answers one request after another on a socket, and returns the requests.
    fn answer(path: &Path, responses: Vec<&'static str>) -> thread::JoinHandle<Vec<String>> {
        let listener = UnixListener::bind(path).unwrap();
        thread::spawn(move || {
            let serve = |response: &str| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    request.push(byte[0]);
                }
                stream.write_all(response.as_bytes()).unwrap();
                String::from_utf8(request).unwrap()
            };
            responses.into_iter().map(serve).collect()
        })
    }

    #[test]
    fn pages_come_through_a_socket() {
        let path = std::env::temp_dir().join(format!("eppctl-{}.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let served = answer(
            &path,
            vec![
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n",
                "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
                "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nnot all",
                "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
            ],
        );
        let admin: Admin = format!("unix:{}", path.display()).parse().unwrap();
        assert_eq!(admin.get("/clusters").unwrap(), b"hello!");
        assert_eq!(admin.get_exposed("/config_dump").unwrap(), None);
        assert!(admin.get_exposed("/clusters").is_err());
        let error = admin.statistics_page().unwrap_err().to_string();
        assert!(error.contains("none of Envoy's statistics"), "{error}");
        let requests = served.join().unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(
            requests[0].starts_with("GET /clusters HTTP/1.1\r\n"),
            "{requests:?}"
        );
        let gone = admin.get("/clusters").unwrap_err().to_string();
        assert!(gone.contains("admin.sock"), "{gone}");
    }
}
