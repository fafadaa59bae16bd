//! Who may ask the admin listener, and who may change something by it.
//!
//! With a token, it is sent as a bearer token or as the password of basic auth, which browsers know how to ask for. Without
//! one, only loopback is listened on, and what is asked there has to name this machine: a page from elsewhere whose name
//! was pointed at 127.0.0.1 does not.
//!
//! A browser adds credentials to whatever any page makes it send. So a change needs a header that no page of another
//! origin can add: the bearer token, or [`GUARD_HEADER`].

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::http::{Method, StatusCode, header};
use actix_web::{HttpRequest, HttpResponse};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use subtle::ConstantTimeEq;

use super::pages::problem;

/// The header that a change by POST has to carry when it bears no bearer token, whatever its value.
pub const GUARD_HEADER: &str = "X-Troupe-Request";

/// Wrong credentials from one address, after which it waits.
const GUESSES: u32 = 10;
/// For how long wrong credentials are remembered, and how long an address waits.
const MEMORY: Duration = Duration::from_secs(60);
/// Addresses that are remembered; beyond, the oldest is forgotten.
const ADDRESSES: usize = 1_024;

/// Who may see what is behind the token. Services ask it for pages of their own, as `web::Data<Access>`.
#[derive(Debug, Clone)]
pub struct Access {
    token: Option<Arc<str>>,
    guesses: Arc<Mutex<HashMap<IpAddr, Guesses>>>,
}

#[derive(Debug, Clone, Copy)]
struct Guesses {
    since: Instant,
    count: u32,
}

/// What of a request says who asks, whatever server it came in by.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// Where it comes from.
    pub peer: IpAddr,
    /// The value of `Authorization`.
    pub authorization: Option<&'a [u8]>,
    /// The host it names.
    pub host: &'a str,
    /// Whether it only reads: GET and HEAD.
    pub reads: bool,
    /// Whether it carries [`GUARD_HEADER`].
    pub guarded: bool,
}

/// Why somebody may not, as an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// 401, 403 or 429.
    pub status: u16,
    /// Why, and what to do.
    pub why: String,
    /// Seconds to wait, with a 429.
    pub retry_after: Option<u64>,
    /// What a 401 asks for, one `WWW-Authenticate` each.
    pub challenges: &'static [&'static str],
}

/// What a 401 asks for; the second makes browsers ask for a password.
const CHALLENGES: [&str; 2] = ["Bearer", "Basic realm=\"troupe\""];

/// How a request shows that it may.
enum Shown {
    Bearer,
    Password,
    Nothing,
    Wrong,
}

impl Access {
    /// Asks for `token`; for none where there is none.
    pub(super) fn new(token: Option<Arc<str>>) -> Self {
        Self { token, guesses: Arc::default() }
    }

    /// Whether there is a token that is asked for.
    pub fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// `Ok` when no token is configured or the request bears it; else the answer to give.
    ///
    /// # Errors
    ///
    /// A problem document: 401, or 429 after too many wrong credentials.
    pub fn check(&self, request: &HttpRequest) -> Result<(), Box<HttpResponse>> {
        self.shown(&Caller::of(request)).map(|_| ()).map_err(|denied| Box::new(denied.answer()))
    }

    /// As [`Access::check`], for pages of an interface: they are asked for by this machine's name where there is no token,
    /// and any method but GET and HEAD needs the bearer token or [`GUARD_HEADER`] besides.
    ///
    /// # Errors
    ///
    /// A problem document: as for [`Access::check`], or 403.
    pub fn check_call(&self, request: &HttpRequest) -> Result<(), Box<HttpResponse>> {
        self.judge(&Caller::of(request)).map_err(|denied| Box::new(denied.answer()))
    }

    /// As [`Access::check_call`], of a request that came in by another server.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn judge(&self, caller: &Caller<'_>) -> Result<(), Denied> {
        let shown = self.shown(caller)?;
        if self.token.is_none() && !names_this_machine(caller.host) {
            let why = "without a token, the admin listener is asked by an address or as localhost, not by another name";
            return Err(Denied::because(403, why));
        }
        if caller.reads || matches!(shown, Shown::Bearer) || caller.guarded {
            return Ok(());
        }
        Err(Denied::because(403, format!("a change needs the bearer token, or the header {GUARD_HEADER}: 1")))
    }

    fn shown(&self, caller: &Caller<'_>) -> Result<Shown, Denied> {
        let Some(token) = &self.token else { return Ok(Shown::Nothing) };
        let (peer, now) = (caller.peer, Instant::now());
        if self.waits(peer, now) {
            let denied = Denied::because(429, "too many wrong credentials; wait a minute");
            return Err(Denied { retry_after: Some(MEMORY.as_secs()), ..denied });
        }
        match shown(caller.authorization, token.as_bytes()) {
            Shown::Nothing => Err(Denied::unauthorized()),
            Shown::Wrong => {
                self.remember(peer, now);
                Err(Denied::unauthorized())
            }
            shown => Ok(shown),
        }
    }

    fn waits(&self, peer: IpAddr, now: Instant) -> bool {
        let guesses = self.guesses.lock();
        guesses.get(&peer).is_some_and(|known| known.count >= GUESSES && now.duration_since(known.since) < MEMORY)
    }

    /// Counts wrong credentials. The first of a minute is logged, and the one after which the address waits.
    fn remember(&self, peer: IpAddr, now: Instant) {
        let mut guesses = self.guesses.lock();
        if guesses.len() >= ADDRESSES && !guesses.contains_key(&peer) {
            let oldest = guesses.iter().min_by_key(|(_, known)| known.since).map(|(peer, _)| *peer);
            if let Some(oldest) = oldest {
                guesses.remove(&oldest);
            }
        }
        let known = guesses.entry(peer).or_insert(Guesses { since: now, count: 0 });
        if now.duration_since(known.since) >= MEMORY {
            *known = Guesses { since: now, count: 0 };
        }
        known.count += 1;
        let count = known.count;
        drop(guesses);
        match count {
            1 => tracing::warn!(%peer, "wrong credentials for the admin listener"),
            GUESSES => {
                tracing::warn!(%peer, count, "too many wrong credentials for the admin listener: it waits a minute")
            }
            _ => {}
        }
    }
}

impl<'a> Caller<'a> {
    /// Who asks an actix server.
    pub fn of(request: &'a HttpRequest) -> Self {
        let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
        Self {
            peer: request.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.ip()),
            authorization: request.headers().get(header::AUTHORIZATION).map(header::HeaderValue::as_bytes),
            host: host.unwrap_or_default(),
            reads: matches!(*request.method(), Method::GET | Method::HEAD),
            guarded: request.headers().contains_key(GUARD_HEADER),
        }
    }
}

impl Denied {
    fn because(status: u16, why: impl Into<String>) -> Self {
        Self { status, why: why.into(), retry_after: None, challenges: &[] }
    }

    fn unauthorized() -> Self {
        let why = "send the token of admin.token_file as `Authorization: Bearer ...`, or as the password of basic auth";
        Self { challenges: &CHALLENGES, ..Self::because(401, why) }
    }

    /// As a problem document.
    fn answer(&self) -> HttpResponse {
        let mut answer = problem(StatusCode::from_u16(self.status).unwrap_or(StatusCode::FORBIDDEN), &self.why);
        let headers = answer.headers_mut();
        for challenge in self.challenges {
            headers.append(header::WWW_AUTHENTICATE, header::HeaderValue::from_static(challenge));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, header::HeaderValue::from(seconds));
        }
        answer
    }
}

/// In constant time: the answer's delay must not tell how much of a guess was right.
fn shown(authorization: Option<&[u8]>, token: &[u8]) -> Shown {
    let Some(given) = authorization else { return Shown::Nothing };
    let (scheme, value) = match given.iter().position(|byte| *byte == b' ') {
        Some(at) => given.split_at(at),
        None => return Shown::Wrong,
    };
    let value = value.trim_ascii();
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return if bool::from(value.ct_eq(token)) { Shown::Bearer } else { Shown::Wrong };
    }
    if scheme.eq_ignore_ascii_case(b"basic")
        && let Ok(decoded) = STANDARD.decode(value)
        && let Some(colon) = decoded.iter().position(|byte| *byte == b':')
        && let Some(password) = decoded.get(colon + 1..)
    {
        // Any name: there is one secret and no people to tell apart.
        return if bool::from(password.ct_eq(token)) { Shown::Password } else { Shown::Wrong };
    }
    Shown::Wrong
}

fn names_this_machine(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}
