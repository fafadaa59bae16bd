//! The interface of the commands: JSON below `/api/`, registered by whoever knows the answer.
//!
//! A service hands in closures; it knows neither HTTP nor who may ask. `/api/status` is here: each service adds a section
//! to it, and says in plain words what is wrong.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use actix_web::http::{Method, StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, web};
use parking_lot::RwLock;
use serde_json::{Map, Value, json};

use super::pages::problem;
use super::{Access, AdminState};
use crate::metrics::ProcessFigures;

/// Where the interface is.
const ROOT: &str = "/api/";

/// What an endpoint answers: JSON, or why there is none.
pub type Answer = Result<Value, Refusal>;

type Pending = Pin<Box<dyn Future<Output = Answer>>>;
type Endpoint = Arc<dyn Fn(Ask) -> Pending + Send + Sync>;
type Section = Arc<dyn Fn() -> Value + Send + Sync>;
type Complaints = Arc<dyn Fn(&mut Vec<String>) + Send + Sync>;

/// Which process this is.
#[derive(Debug, Clone)]
pub struct Identity {
    /// What runs in it: `gateway`, or `troupe` for everything at once.
    pub service: String,
    /// Which instance, as in the log: host and process.
    pub instance: String,
    /// The version of the binary.
    pub version: &'static str,
    /// The commit it was built from, or `unknown`.
    pub commit: &'static str,
}

/// What an endpoint is asked: the query of the URL.
#[derive(Debug, Clone, Default)]
pub struct Ask {
    query: BTreeMap<String, String>,
}

/// Why an endpoint does not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// What is wrong, and what to do.
    pub detail: String,
}

/// The endpoints of a process. Clones share them.
#[derive(Clone)]
pub struct Api {
    identity: Arc<Identity>,
    started: Instant,
    shared: Arc<RwLock<Shared>>,
}

#[derive(Default)]
struct Shared {
    reads: BTreeMap<String, Endpoint>,
    changes: BTreeMap<String, Endpoint>,
    sections: Vec<(String, Section)>,
    complaints: Vec<Complaints>,
}

impl Ask {
    /// A parameter of the query.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }

    /// A parameter that has to be there.
    ///
    /// # Errors
    /// A 400 that names it.
    pub fn need(&self, name: &str) -> Result<&str, Refusal> {
        self.get(name).ok_or_else(|| Refusal::new(400, format!("the parameter `{name}` is missing")))
    }

    /// Whether a parameter says yes.
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.get(name), Some("true" | "1" | ""))
    }
}

impl Refusal {
    /// A refusal with this HTTP status.
    pub fn new(status: u16, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into() }
    }
}

impl Api {
    /// No endpoint but `/api/status`.
    pub fn new(identity: Identity) -> Self {
        Self { identity: Arc::new(identity), started: Instant::now(), shared: Arc::default() }
    }

    /// Which process this is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Adds what is read at `/api/{name}`. The closure runs on the admin listener's thread and must not block it for long.
    pub fn get(&self, name: &str, answer: impl Fn(&Ask) -> Answer + Send + Sync + 'static) {
        let endpoint: Endpoint = Arc::new(move |ask| Box::pin(std::future::ready(answer(&ask))));
        self.shared.write().reads.insert(name.to_owned(), endpoint);
    }

    /// Adds what is read at `/api/{name}` and has to be asked for elsewhere.
    pub fn get_later<F>(&self, name: &str, answer: impl Fn(Ask) -> F + Send + Sync + 'static)
    where
        F: Future<Output = Answer> + 'static,
    {
        let endpoint: Endpoint = Arc::new(move |ask| Box::pin(answer(ask)));
        self.shared.write().reads.insert(name.to_owned(), endpoint);
    }

    /// Adds what is changed by a POST to `/api/{name}`. Each is logged with who asked.
    pub fn post<F>(&self, name: &str, answer: impl Fn(Ask) -> F + Send + Sync + 'static)
    where
        F: Future<Output = Answer> + 'static,
    {
        let endpoint: Endpoint = Arc::new(move |ask| Box::pin(answer(ask)));
        self.shared.write().changes.insert(name.to_owned(), endpoint);
    }

    /// Adds a section to `/api/status`.
    pub fn section(&self, name: &str, section: impl Fn() -> Value + Send + Sync + 'static) {
        self.shared.write().sections.push((name.to_owned(), Arc::new(section)));
    }

    /// Adds to the `problems` of `/api/status`: one line each, what is wrong and what to do, in plain words.
    pub fn problems(&self, complaints: impl Fn(&mut Vec<String>) + Send + Sync + 'static) {
        self.shared.write().complaints.push(Arc::new(complaints));
    }

    /// Has the endpoint `name`, which changes something, carried out, as if it had been asked for by POST; `who` asks is
    /// logged. The future belongs to the calling thread.
    pub fn change(
        &self,
        name: &str,
        query: BTreeMap<String, String>,
        who: &str,
    ) -> impl Future<Output = Answer> + 'static + use<> {
        let endpoint = self.shared.read().changes.get(name).cloned();
        let (name, who) = (name.to_owned(), who.to_owned());
        async move {
            let Some(endpoint) = endpoint else {
                return Err(Refusal::new(404, format!("this process has no {ROOT}{name}")));
            };
            let asked = query.clone();
            let result = endpoint(Ask { query }).await;
            log(&format!("{ROOT}{name}"), &asked, Some(&who), &result);
            result
        }
    }

    fn find(&self, method: &Method, name: &str) -> Found {
        let shared = self.shared.read();
        let (reads, changes) = (shared.reads.get(name), shared.changes.get(name));
        match *method {
            Method::GET | Method::HEAD if name == "status" => Found::Status,
            Method::GET | Method::HEAD if reads.is_some() => Found::Endpoint(reads.cloned()),
            Method::POST if changes.is_some() => Found::Endpoint(changes.cloned()),
            _ if reads.is_some() || name == "status" => Found::Other("GET, HEAD"),
            _ if changes.is_some() => Found::Other("POST"),
            _ => Found::Nothing,
        }
    }

    fn status(&self, state: &AdminState) -> Value {
        let (sections, complaints) = {
            let shared = self.shared.read();
            (shared.sections.clone(), shared.complaints.clone())
        };
        let report = state.readiness.report();
        let stalled = state.watchdog.stalled(super::STALLED_FOR_PEOPLE);
        let mut problems = Vec::new();
        for condition in report.conditions.iter().filter(|condition| !condition.met) {
            problems.push(format!("not ready: {}", condition.reason.as_deref().unwrap_or(&condition.name)));
        }
        for stalled in &stalled {
            let since = stalled.since.as_secs_f64();
            problems
                .push(format!("the thread {} has not answered for {since:.1} s: something blocks it", stalled.thread));
        }
        for complaint in &complaints {
            complaint(&mut problems);
        }
        let mut status = Map::new();
        let mut put = |name: &str, value: Value| status.insert(name.to_owned(), value);
        put("service", self.identity.service.as_str().into());
        put("instance", self.identity.instance.as_str().into());
        put("pid", std::process::id().into());
        put("version", self.identity.version.into());
        put("commit", self.identity.commit.into());
        put("uptime_seconds", self.started.elapsed().as_secs().into());
        put("readiness", json!(report));
        put("threads", json!({ "watched": state.watchdog.watched(), "stalled": stalled.len() }));
        if let Some(process) = ProcessFigures::read() {
            put(
                "process",
                json!({
                    "resident_bytes": process.resident_bytes,
                    "cpu_seconds": process.cpu_seconds,
                    "threads": process.threads,
                    "descriptors": process.descriptors,
                    "max_descriptors": process.max_descriptors,
                }),
            );
        }
        put("load_average", load_average());
        for (name, section) in &sections {
            put(name, section());
        }
        put("problems", problems.into());
        Value::Object(status)
    }
}

impl fmt::Debug for Api {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Api").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// The machine's, over 1, 5 and 15 minutes.
fn load_average() -> Value {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).filter_map(|load| load.parse::<f64>().ok()).collect()
}

enum Found {
    Status,
    Endpoint(Option<Endpoint>),
    /// There is one, for other methods.
    Other(&'static str),
    Nothing,
}

pub(super) fn configure(app: &mut web::ServiceConfig) {
    app.service(web::resource("/api/{name:.*}").to(answer));
}

async fn answer(
    request: HttpRequest,
    state: web::Data<AdminState>,
    access: web::Data<Access>,
    query: Result<web::Query<BTreeMap<String, String>>, actix_web::Error>,
) -> HttpResponse {
    if let Err(refusal) = access.check_call(&request) {
        return *refusal;
    }
    let name = request.path().strip_prefix(ROOT).unwrap_or_default();
    let endpoint = match state.api.find(request.method(), name) {
        Found::Status => return json_answer(&state.api.status(&state)),
        Found::Endpoint(Some(endpoint)) => endpoint,
        Found::Other(allow) => {
            let mut answer = problem(StatusCode::METHOD_NOT_ALLOWED, &format!("{} takes {allow}", request.path()));
            answer.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static(allow));
            return answer;
        }
        Found::Endpoint(None) | Found::Nothing if !state.readiness.is_started() => {
            let service = &state.api.identity.service;
            let why = format!("this process ({service}) is still starting, and has no {} yet", request.path());
            return problem(StatusCode::SERVICE_UNAVAILABLE, &why);
        }
        Found::Endpoint(None) | Found::Nothing => {
            let service = &state.api.identity.service;
            return problem(StatusCode::NOT_FOUND, &format!("this process ({service}) has no {}", request.path()));
        }
    };
    let ask = match query {
        Ok(query) => Ask { query: query.into_inner() },
        Err(_) => return problem(StatusCode::BAD_REQUEST, "the query is malformed"),
    };
    let changes = request.method() == Method::POST;
    let peer = request.peer_addr().map(|peer| peer.to_string());
    let asked = ask.query.clone();
    let result = endpoint(ask).await;
    if changes {
        log(request.path(), &asked, peer.as_deref(), &result);
    }
    match result {
        Ok(value) => json_answer(&value),
        Err(Refusal { status, detail }) => {
            problem(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), &detail)
        }
    }
}

/// Who had what done.
fn log(page: &str, asked: &BTreeMap<String, String>, by: Option<&str>, result: &Answer) {
    let refused = result.as_ref().err().map(|refusal| refusal.detail.as_str());
    tracing::info!(page, ?asked, by, refused, "an operator asked for a change");
}

fn json_answer(value: &Value) -> HttpResponse {
    HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-store")).json(value)
}
