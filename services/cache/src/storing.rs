//! May a response be stored, and on which terms (RFC 9111 §3)?

use troupe_wire::head::{RequestHead, ResponseHead};

use crate::control::{RequestControl, ResponseControl};
use crate::fields::Head;
use crate::freshness::{self, Source, Times};
use crate::groups;
use crate::partial;
use crate::policy::Policy;
use crate::targeted;
use crate::validators::EntityTag;
use crate::vary::Selection;

/// The terms on which a response is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// When it was asked for and came.
    pub times: Times,
    /// Its age when it came, in milliseconds.
    pub initial_age: u64,
    /// How long it is fresh from its making on, in milliseconds.
    pub lifetime: u64,
    /// Who says how long it is fresh.
    pub source: Source,
    /// It must be validated before each use (§5.2.2.4).
    pub no_cache: bool,
    /// It must not be used stale (§5.2.2.2, §5.2.2.8, §5.2.2.10).
    pub must_revalidate: bool,
    /// Milliseconds past its freshness for which it may be used while a new one is fetched.
    pub stale_while_revalidate: u64,
    /// Milliseconds past its freshness for which it may be used where a new one cannot be had.
    pub stale_if_error: u64,
    /// The fields that are left out.
    pub withheld: Vec<Box<str>>,
    /// The requests that it answers.
    pub selection: Selection,
    /// The groups it belongs to.
    pub groups: Box<[Box<str>]>,
}

/// Why a response is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The method's responses are not cached (§3).
    Method,
    /// The request says `no-store` (§5.2.1.5).
    RequestNoStore,
    /// A status that is not final, or stands for a part or for the request's own range or condition: 206, 304, 416 (§3).
    Status,
    /// The response says `no-store` (§5.2.2.5).
    NoStore,
    /// The response is for one user (§5.2.2.7).
    Private,
    /// The request had credentials, and the response does not say that it is for others too (§3.5).
    Authorization,
    /// The response sets a cookie, and does not say that the cookie may be left out.
    SetCookie,
    /// The request had cookies, and only the configuration says that the response may be stored.
    Cookie,
    /// `Vary: *`, more fields than are told apart, or one that no two calls have alike (§4.1).
    Vary,
    /// It is in more groups, or in ones with longer names, than are kept: a purge of one that was left out would not find it.
    Groups,
    /// Nothing says how long it is fresh, and it cannot be validated.
    NoFreshness,
}

impl Refusal {
    /// A word for `Cache-Status` and for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::RequestNoStore => "request-no-store",
            Self::Status => "status",
            Self::NoStore => "no-store",
            Self::Private => "private",
            Self::Authorization => "authorization",
            Self::SetCookie => "set-cookie",
            Self::Cookie => "cookie",
            Self::Vary => "vary",
            Self::Groups => "groups",
            Self::NoFreshness => "no-freshness",
        }
    }
}

/// Judges a response to `request`, whose method is GET here where the client's was HEAD.
///
/// # Errors
/// Why it must not be stored, or would be of no use.
pub fn judge(request: &RequestHead, response: &ResponseHead, times: Times, policy: &Policy) -> Result<Terms, Refusal> {
    match response.status() {
        // What one client's range brought about is no answer to anybody else.
        ..200 | 206 | 304 | 416 => Err(Refusal::Status),
        _ => judge_final(request, response, times, policy),
    }
}

/// The same of a part of a response (§3.3). It is stored as a part, see [`crate::partial`].
///
/// # Errors
/// As [`judge`]; [`Refusal::Status`] where it is no part that others can be joined to.
pub fn judge_part(
    request: &RequestHead,
    response: &ResponseHead,
    times: Times,
    policy: &Policy,
) -> Result<Terms, Refusal> {
    if !partial::is_part(response) {
        return Err(Refusal::Status);
    }
    judge_final(request, response, times, policy)
}

fn judge_final(
    request: &RequestHead,
    response: &ResponseHead,
    times: Times,
    policy: &Policy,
) -> Result<Terms, Refusal> {
    if request.method() != "GET" {
        return Err(Refusal::Method);
    }
    if policy.obey_requests && RequestControl::of(request).no_store {
        return Err(Refusal::RequestNoStore);
    }
    let status = response.status();
    let targeted = match policy.only_targeted {
        true => Some(targeted::one(response, targeted::OWN).ok_or(Refusal::NoFreshness)?),
        false => targeted::of(response),
    };
    let is_targeted = targeted.is_some();
    let control = targeted.unwrap_or_else(|| ResponseControl::of(response));
    // `must-understand` stands in for `no-store` where the status is understood; where it is not, nothing is stored.
    if control.no_store && !(control.must_understand && is_understood(status)) {
        return Err(Refusal::NoStore);
    }
    if control.must_understand && !is_understood(status) {
        return Err(Refusal::Status);
    }
    if control.private {
        return Err(Refusal::Private);
    }
    let authorized = request.has("authorization");
    if authorized && !(control.must_revalidate || control.public || control.s_maxage.is_some()) {
        return Err(Refusal::Authorization);
    }
    if response.has("set-cookie") && !control.withheld.iter().any(|name| **name == *"set-cookie") {
        return Err(Refusal::SetCookie);
    }
    let own = freshness::lifetime(response, &control, is_targeted, times, policy);
    // A lifetime that only the configuration gives is for what is the same for everybody.
    let personal = (request.has("cookie") && !policy.ignore_cookies) || authorized;
    let of_status = policy.of_status(status);
    let route_ttl = policy.ttl.filter(|_| of_status.is_some() || freshness::is_heuristic(status));
    let (lifetime, source) = match route_ttl {
        Some(ttl) if !personal => (freshness::millis(ttl), Source::Route),
        Some(_) if !own.source.is_explicit() => return Err(Refusal::Cookie),
        _ => (own.millis, own.source),
    };
    let selection = Selection::of(request, response).ok_or(Refusal::Vary)?;
    let initial_age = freshness::initial_age(response, times);
    let lifetime = match source {
        // Counted from when it came: it says for how long this cache keeps it.
        Source::Route => lifetime.saturating_add(initial_age),
        _ => lifetime,
    };
    let longest = of_status.map_or(policy.max_ttl, |ttl| ttl.min(policy.max_ttl));
    let lifetime = lifetime.min(freshness::millis(longest).saturating_add(match source {
        Source::Route => initial_age,
        _ => 0,
    }));
    let must_revalidate = control.must_revalidate || control.proxy_revalidate || source == Source::SharedMaxAge;
    let stale = |own: Option<u32>, configured| match (must_revalidate || control.no_cache, own) {
        (true, _) => 0,
        (false, Some(seconds)) => u64::from(seconds) * 1000,
        (false, None) => freshness::millis(configured),
    };
    let terms = Terms {
        times,
        initial_age,
        lifetime,
        source,
        no_cache: control.no_cache,
        must_revalidate,
        stale_while_revalidate: stale(control.stale_while_revalidate, policy.stale_while_revalidate),
        stale_if_error: stale(control.stale_if_error, policy.stale_if_error),
        withheld: control.withheld,
        selection,
        groups: groups::of(response).ok_or(Refusal::Groups)?,
    };
    // Stored without a reason, it would only take the place of another.
    let latest = lifetime.saturating_add(terms.stale_while_revalidate.max(terms.stale_if_error));
    let usable = (latest > initial_age && !terms.no_cache) || can_be_validated(response);
    let opened = source != Source::Nobody || control.public || freshness::is_heuristic(status);
    if usable && opened { Ok(terms) } else { Err(Refusal::NoFreshness) }
}

/// Whether an answer with this status is to whoever asked, and says nothing of what others are answered: an error in the request, in who
/// sends it or when. The rest of RFC 9110 §15.5 is about the resource: it is not there (404, 410), is not to be had by GET (405) or
/// under so long a URL (414), or must not be given any more (451, RFC 7725 §3).
pub fn is_for_one(status: u16) -> bool {
    matches!(status, 400..=499) && !matches!(status, 404 | 405 | 410 | 414 | 451)
}

fn can_be_validated(response: &ResponseHead) -> bool {
    response.status() == 200
        && (EntityTag::of(response).is_some()
            || response.first("last-modified").is_some_and(|date| crate::time::http_date(date).is_some()))
}

/// Statuses whose caching rules this cache implements, for `must-understand` (§5.2.2.3).
fn is_understood(status: u16) -> bool {
    matches!(status,
        200..=208 | 226 | 300..=303 | 305 | 307 | 308 | 400..=417 | 421..=426 | 428 | 429 | 431 | 451 | 500..=508 | 510 | 511)
}

#[cfg(test)]
mod tests;
