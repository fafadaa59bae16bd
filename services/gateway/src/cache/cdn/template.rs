//! From a purge to the call that tells a network of it.

use std::borrow::Cow;
use std::fs;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use troupe_cache::store::Selector;
use ureq::http::Request;
use ureq::http::uri::Uri;

use super::super::config::{CdnConfig, CdnPreset};

/// Cloudflare's API, whose body says what is purged.
const CLOUDFLARE: &str = "https://api.cloudflare.com/client/v4/zones/{zone}/purge_cache";
/// All but what RFC 3986 §2.3 leaves as it is.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// Longest token that is read.
const MAX_TOKEN: usize = 4096;

/// The call of a network's API, with places for what is purged.
#[derive(Debug)]
pub(super) struct Template {
    config: CdnConfig,
}

/// Why there is no call.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoCall {
    /// The network is not told of this kind of purge.
    #[error("no body is configured for this kind of purge")]
    NotTold,
    /// The token cannot be read.
    #[error("cache.cdn.token_file: {0}")]
    Token(std::io::Error),
    /// What comes out is no request.
    #[error("the call is malformed: {0}")]
    Malformed(#[from] ureq::http::Error),
}

/// What a word of the template stands for, and how it is written where.
#[derive(Clone, Copy)]
enum Encoding {
    Url,
    Json,
    Plain,
}

impl Template {
    /// The template of a configuration; `None` where nobody is told.
    ///
    /// # Errors
    /// What is wrong with the configuration, with the key.
    pub(super) fn new(config: &CdnConfig) -> Result<Option<Self>, String> {
        let mut config = config.clone();
        match config.preset {
            CdnPreset::None => return Ok(None),
            CdnPreset::Cloudflare => cloudflare(&mut config)?,
            CdnPreset::Custom => {}
        }
        if config.method.is_empty() {
            config.method = "POST".to_owned();
        }
        if config.url.is_empty() {
            return Err("cache.cdn.url is missing: the preset \"custom\" needs the address of the API".to_owned());
        }
        let probe = fill(&config.url, &[("zone", "z"), ("token", "t")], Encoding::Url);
        let uri: Uri = probe.parse().map_err(|error| format!("cache.cdn.url: {error}"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none() {
            return Err("cache.cdn.url must be an absolute URL, such as https://api.example/purge".to_owned());
        }
        Ok(Some(Self { config }))
    }

    /// How long a call may take.
    pub(super) fn timeout(&self) -> std::time::Duration {
        self.config.timeout.get()
    }

    /// The call that tells of a purge.
    pub(super) fn call(&self, purged: &Selector) -> Result<Request<Vec<u8>>, NoCall> {
        let config = &self.config;
        let bodies = &config.bodies;
        let (body, name, value) = match purged {
            Selector::Url(key) => (&bodies.url, "url", key.to_string()),
            Selector::Prefix(key) => (&bodies.prefix, "prefix", format!("{}{}", key.host(), key.target())),
            Selector::Host(host) => (&bodies.host, "host", host.to_string()),
            Selector::Group(group, _) => (&bodies.group, "group", group.to_string()),
            Selector::All => (&bodies.all, "", String::new()),
        };
        let body = body.as_deref().ok_or(NoCall::NotTold)?;
        let token = self.token()?;
        let words = [("zone", &*config.zone), ("token", &*token), (name, &*value)];
        let mut request =
            Request::builder().method(config.method.as_str()).uri(fill(&config.url, &words, Encoding::Url));
        for (header, value) in &config.headers {
            request = request.header(header, fill(value, &words[..2], Encoding::Plain));
        }
        Ok(request.body(fill(body, &words, Encoding::Json).into_bytes())?)
    }

    fn token(&self) -> Result<String, NoCall> {
        if self.config.token_file.as_os_str().is_empty() {
            return Ok(String::new());
        }
        let text = fs::read_to_string(&self.config.token_file).map_err(NoCall::Token)?;
        Ok(text.trim().chars().take(MAX_TOKEN).collect())
    }
}

fn cloudflare(config: &mut CdnConfig) -> Result<(), String> {
    if config.zone.is_empty() || config.token_file.as_os_str().is_empty() {
        return Err("cache.cdn: the preset \"cloudflare\" needs zone, the zone's id, and token_file, with an API token that may \
                    purge it"
            .to_owned());
    }
    if config.url.is_empty() {
        CLOUDFLARE.clone_into(&mut config.url);
    }
    for (name, value) in [("Authorization", "Bearer {token}"), ("Content-Type", "application/json")] {
        config.headers.entry(name.to_owned()).or_insert_with(|| value.to_owned());
    }
    let bodies = &mut config.bodies;
    for (body, preset) in [
        (&mut bodies.url, r#"{"files":["{url}"]}"#),
        (&mut bodies.prefix, r#"{"prefixes":["{prefix}"]}"#),
        (&mut bodies.host, r#"{"hosts":["{host}"]}"#),
        (&mut bodies.group, r#"{"tags":["{group}"]}"#),
        (&mut bodies.all, r#"{"purge_everything":true}"#),
    ] {
        body.get_or_insert_with(|| preset.to_owned());
    }
    Ok(())
}

/// The template with its words filled in, once each place: what is filled in is no template.
fn fill(template: &str, words: &[(&str, &str)], encoding: Encoding) -> String {
    let mut out = String::with_capacity(template.len() + 64);
    let mut rest = template;
    while let Some(at) = rest.find('{') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let word = words.iter().find_map(|(name, value)| {
            let tail = from.get(1..)?.strip_prefix(name)?.strip_prefix('}')?;
            (!name.is_empty()).then_some((*value, tail))
        });
        match word {
            Some((value, tail)) => {
                out.push_str(&encoded(value, encoding));
                rest = tail;
            }
            None => {
                out.push('{');
                rest = from.get(1..).unwrap_or_default();
            }
        }
    }
    out.push_str(rest);
    out
}

fn encoded(value: &str, encoding: Encoding) -> Cow<'_, str> {
    match encoding {
        Encoding::Plain => Cow::Borrowed(value),
        Encoding::Url => utf8_percent_encode(value, ENCODED).into(),
        Encoding::Json => {
            let quoted = serde_json::Value::from(value).to_string();
            Cow::Owned(quoted.trim_start_matches('"').strip_suffix('"').unwrap_or_default().to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use troupe_cache::key::{HostBuffer, Key, Sought};
    use troupe_wire::head::Scheme;

    use super::*;

    fn key(target: &str) -> Key {
        Sought::new(Scheme::Https, "a.example", target, &mut HostBuffer::default()).unwrap().to_key()
    }

    fn cloudflare() -> (Template, tempfile::NamedTempFile) {
        let mut token = tempfile::NamedTempFile::new().unwrap();
        writeln!(token, "secret").unwrap();
        let config = CdnConfig {
            preset: CdnPreset::Cloudflare,
            zone: "z1".into(),
            token_file: token.path().into(),
            ..CdnConfig::default()
        };
        (Template::new(&config).unwrap().unwrap(), token)
    }

    #[test]
    fn cloudflare_is_told_in_its_own_words() {
        let (template, _token) = cloudflare();
        let call = template.call(&Selector::Url(key("/a?b=\"c\""))).unwrap();
        assert_eq!(call.method(), "POST");
        assert_eq!(call.uri(), "https://api.cloudflare.com/client/v4/zones/z1/purge_cache");
        assert_eq!(call.headers()["authorization"], "Bearer secret");
        let body = |selector: Selector| {
            let call = template.call(&selector).unwrap();
            serde_json::from_slice::<serde_json::Value>(call.body()).unwrap().to_string()
        };
        assert_eq!(body(Selector::Url(key("/a?b=\"c\""))), r#"{"files":["https://a.example/a?b=\"c\""]}"#);
        assert_eq!(body(Selector::Prefix(key("/news/"))), r#"{"prefixes":["a.example/news/"]}"#);
        assert_eq!(body(Selector::Host("a.example".into())), r#"{"hosts":["a.example"]}"#);
        assert_eq!(body(Selector::Group("{zone}\"".into(), None)), r#"{"tags":["{zone}\""]}"#);
        assert_eq!(body(Selector::All), r#"{"purge_everything":true}"#);
    }

    #[test]
    fn any_other_is_told_as_configured() {
        let mut config = CdnConfig {
            preset: CdnPreset::Custom,
            url: "http://127.0.0.1:1/purge/{zone}/{group}?u={url}".into(),
            zone: "a b".into(),
            ..CdnConfig::default()
        };
        config.bodies.group = Some(String::new());
        let template = Template::new(&config).unwrap().unwrap();
        let call = template.call(&Selector::Group("x/y".into(), None)).unwrap();
        assert_eq!(call.uri(), "http://127.0.0.1:1/purge/a%20b/x%2Fy?u={url}");
        assert!(matches!(template.call(&Selector::All), Err(NoCall::NotTold)));
    }

    #[test]
    fn what_cannot_be_told_is_said_at_start() {
        let wrong = |config: CdnConfig| Template::new(&config).map(|template| template.is_some());
        assert_eq!(wrong(CdnConfig::default()), Ok(false));
        assert!(wrong(CdnConfig { preset: CdnPreset::Custom, ..CdnConfig::default() }).is_err());
        assert!(wrong(CdnConfig { preset: CdnPreset::Cloudflare, ..CdnConfig::default() }).is_err());
        for url in ["/purge", "ftp://a/", "http://"] {
            assert!(
                wrong(CdnConfig { preset: CdnPreset::Custom, url: url.into(), ..CdnConfig::default() }).is_err(),
                "{url}"
            );
        }
    }
}
