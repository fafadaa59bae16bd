//! Request bodies on disk: what does not fit the frame of a call waits here, so that a slow upload holds no PHP process and
//! a big one no memory.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};
use metrics::Gauge;
use troupe_mesh::body::Body;
use troupe_mesh::failure::{Failure, Outcome, Stage};
use troupe_wire::head::RequestHead;

use crate::call::{INLINE_BODY, RETRY_AFTER};
use crate::multipart;
use crate::request::Payload;
use crate::rundir::RunDir;
use crate::serialize::{self, Array};

/// Bytes gathered before they are written: a write goes to a thread that may block, and the way there is not free.
const WRITE_SIZE: usize = 128 * 1024;
/// Bodies of one pool that may be on their way at once, each with a descriptor and up to [`WRITE_SIZE`] bytes of memory.
/// They hold no process, so that slow uploads do not keep other calls out.
pub(crate) const MAX_GATHERING: usize = 512;

/// Where bodies are kept, and how much of them.
#[derive(Debug, Clone)]
pub(crate) struct Spool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    dir: RunDir,
    quota: u64,
    used: AtomicU64,
    next: AtomicU64,
    gathering: AtomicUsize,
    gauge: Gauge,
    /// Another spool tells the figure.
    silent: AtomicBool,
    uploads: UploadLimits,
}

impl Shared {
    fn show(&self, used: u64) {
        if !self.silent.load(Ordering::Relaxed) {
            self.gauge.set(used as f64);
        }
    }
}

/// PHP's own limits of uploads, from its ini settings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UploadLimits {
    /// `max_file_uploads`; further files are left out.
    pub(crate) files: usize,
    /// `upload_max_filesize`; a longer one is left out with UPLOAD_ERR_INI_SIZE.
    pub(crate) file_size: u64,
}

/// A form, or a body of any other kind, that PHP reads from files.
#[derive(Debug, Default)]
pub(crate) struct Form {
    /// The fields of a multipart body, urlencoded.
    pub(crate) fields: Option<String>,
    /// The files of a multipart body.
    pub(crate) files: Option<Vec<Upload>>,
    /// The body of another kind.
    pub(crate) body: Option<SpoolFile>,
    /// Bytes the client sent.
    pub(crate) received: u64,
}

/// One file of a multipart body.
#[derive(Debug)]
pub(crate) struct Upload {
    pub(crate) field: String,
    pub(crate) file_name: String,
    pub(crate) content_type: String,
    /// One of PHP's UPLOAD_ERR constants.
    pub(crate) error: u8,
    pub(crate) content: Option<SpoolFile>,
}

impl Form {
    pub(crate) fn len(&self) -> u64 {
        self.received
    }

    /// Appends the entries `p`, `f` and `b`.
    pub(crate) fn write(&self, out: &mut Vec<u8>, rich: &mut Array) {
        rich.key(out, b"p");
        match &self.fields {
            Some(fields) => serialize::string(out, fields.as_bytes()),
            None => serialize::null(out),
        }
        rich.key(out, b"f");
        match &self.files {
            Some(files) => {
                let mut list = serialize::array(out);
                for upload in files {
                    list.item(out);
                    upload.write(out);
                }
                list.end(out);
            }
            None => serialize::null(out),
        }
        rich.key(out, b"b");
        match &self.body {
            Some(file) => serialize::string(out, file.path().as_os_str().as_encoded_bytes()),
            None => serialize::null(out),
        }
    }
}

impl Upload {
    fn write(&self, out: &mut Vec<u8>) {
        let (path, len) =
            self.content.as_ref().map_or((&b""[..], 0), |file| (file.path().as_os_str().as_encoded_bytes(), file.len));
        let mut parts = serialize::array(out);
        for part in [self.field.as_bytes(), self.file_name.as_bytes(), self.content_type.as_bytes(), path] {
            parts.item(out);
            serialize::string(out, part);
        }
        parts.item(out);
        serialize::integer(out, u64::from(self.error));
        parts.item(out);
        serialize::integer(out, len);
        parts.end(out);
    }
}

impl Spool {
    /// Makes the pool's directory below `base`, or below the system's directory for temporary files. `owner` is the user PHP
    /// runs as.
    pub(crate) fn create(
        (pool, tag): (&str, &str),
        base: &Path,
        owner: Option<(u32, u32)>,
        quota: u64,
        uploads: UploadLimits,
        gauge: Gauge,
    ) -> io::Result<Self> {
        let base = if base.as_os_str().is_empty() { std::env::temp_dir() } else { base.to_owned() };
        let dir = RunDir::create_spool(&base, pool, tag, owner)?;
        let (used, next) = (AtomicU64::new(0), AtomicU64::new(0));
        let (gathering, silent) = (AtomicUsize::new(0), AtomicBool::new(false));
        Ok(Self(Arc::new(Shared { dir, quota, used, next, gathering, gauge, silent, uploads })))
    }

    /// Whether another spool tells how much is on disk.
    pub(crate) fn be_silent(&self, silent: bool) {
        self.0.silent.store(silent, Ordering::Relaxed);
        if !silent {
            self.0.show(self.0.used.load(Ordering::Relaxed));
        }
    }

    fn enter(&self) -> Result<Gathering<'_>, Failure> {
        let gathering = Gathering(&self.0.gathering);
        if self.0.gathering.fetch_add(1, Ordering::AcqRel) >= MAX_GATHERING {
            return Err(Failure::exhausted(Stage::PhpPool, "too many request bodies are on their way", RETRY_AFTER));
        }
        Ok(gathering)
    }

    pub(crate) fn uploads(&self) -> UploadLimits {
        self.0.uploads
    }

    /// Starts a file.
    pub(crate) async fn file(&self) -> Result<SpoolWriter, Failure> {
        let name = self.0.next.fetch_add(1, Ordering::Relaxed).to_string();
        let path = self.0.dir.path().join(&name);
        let shared = Arc::clone(&self.0);
        let made = blocking(move || {
            let file = shared.dir.file(&name)?;
            // Only what was made here is removed again.
            Ok((file, SpoolFile { name, path, len: 0, shared }))
        });
        let (file, spooled) = made.await.map_err(failed)?;
        Ok(SpoolWriter { file: Some(file), gathered: BytesMut::new(), spooled })
    }
}

/// A body on its way.
struct Gathering<'a>(&'a AtomicUsize);

impl Drop for Gathering<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A file that is being written; it goes when this is dropped unfinished.
#[derive(Debug)]
pub(crate) struct SpoolWriter {
    file: Option<File>,
    gathered: BytesMut,
    spooled: SpoolFile,
}

impl SpoolWriter {
    /// Appends `piece`.
    ///
    /// # Errors
    /// When the quota or the disk is full; the call has not started.
    pub(crate) async fn write(&mut self, piece: &[u8]) -> Result<(), Failure> {
        self.spooled.grow(piece.len() as u64)?;
        self.gathered.extend_from_slice(piece);
        if self.gathered.len() >= WRITE_SIZE { self.flush().await } else { Ok(()) }
    }

    /// Ends the file.
    pub(crate) async fn finish(mut self) -> Result<SpoolFile, Failure> {
        self.flush().await?;
        Ok(self.spooled)
    }

    async fn flush(&mut self) -> Result<(), Failure> {
        let (Some(mut file), gathered) = (self.file.take(), self.gathered.split()) else {
            return Err(failed(io::ErrorKind::BrokenPipe.into()));
        };
        let written = blocking(move || {
            file.write_all(&gathered)?;
            Ok((file, gathered))
        });
        let (file, mut gathered) = written.await.map_err(failed)?;
        gathered.clear();
        self.gathered = gathered;
        self.file = Some(file);
        Ok(())
    }
}

/// A file that is removed, and its quota given back, when this is dropped.
#[derive(Debug)]
pub(crate) struct SpoolFile {
    name: String,
    /// Where PHP finds it.
    path: PathBuf,
    len: u64,
    shared: Arc<Shared>,
}

impl SpoolFile {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn grow(&mut self, by: u64) -> Result<(), Failure> {
        let used = self.shared.used.fetch_add(by, Ordering::AcqRel) + by;
        self.len += by;
        self.shared.show(used);
        if used > self.shared.quota {
            tracing::warn!(quota = self.shared.quota, "the spool's quota is used up: a request is refused");
            return Err(Failure::exhausted(Stage::PhpPool, "no room for the request body", RETRY_AFTER));
        }
        Ok(())
    }
}

impl Drop for SpoolFile {
    fn drop(&mut self) {
        let used = self.shared.used.fetch_sub(self.len, Ordering::AcqRel).saturating_sub(self.len);
        self.shared.show(used);
        let (name, shared) = (std::mem::take(&mut self.name), Arc::clone(&self.shared));
        // Freeing a big file takes the kernel a while. The function may have moved it away.
        let remove = move || shared.dir.remove(&name);
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => drop(remove()),
        }
    }
}

/// Whether PHP would look for form fields and files in the body.
pub(crate) fn is_multipart(head: &RequestHead) -> bool {
    const TYPE: &[u8] = b"multipart/form-data";
    head.method() == "POST"
        && head
            .field("content-type")
            .and_then(|value| value.get(..TYPE.len()))
            .is_some_and(|start| start.eq_ignore_ascii_case(TYPE))
}

/// Takes a whole body in before its call gets a process.
pub(crate) async fn gather(spool: &Spool, head: &RequestHead, mut body: Body) -> Result<Payload, Failure> {
    let _gathering = spool.enter()?;
    if is_multipart(head) {
        let content_type = head.field("content-type").unwrap_or_default();
        return multipart::parse(spool, content_type, body).await.map(Payload::Form);
    }
    let mut small = BytesMut::new();
    let mut file = None;
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(|_| cut_short())?;
        match &mut file {
            None if (small.len() + piece.len()) as u64 <= INLINE_BODY => {
                if small.is_empty() && body.is_empty() {
                    return Ok(Payload::Inline(piece));
                }
                small.extend_from_slice(&piece);
            }
            None => {
                let mut writer = spool.file().await?;
                writer.write(&small).await?;
                writer.write(&piece).await?;
                file = Some(writer);
            }
            Some(writer) => writer.write(&piece).await?,
        }
    }
    match file {
        None => Ok(Payload::Inline(small.freeze())),
        Some(writer) => {
            let file = writer.finish().await?;
            Ok(Payload::Form(Form { received: file.len, body: Some(file), ..Form::default() }))
        }
    }
}

/// The client did not send what it announced.
pub(crate) fn cut_short() -> Failure {
    Failure::new(Outcome::Cancelled, Stage::PhpPool, "the request body ended before it was complete").not_started()
}

fn failed(error: io::Error) -> Failure {
    tracing::error!(%error, "cannot spool a request body");
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Failure::refused(Stage::PhpPool, 507, "no room for the request body")
        }
        _ => Failure::new(Outcome::Internal, Stage::PhpPool, "cannot keep the request body").not_started(),
    }
    .with_detail(error.to_string())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Pieces of a body, for a parser that wants a stream.
pub(crate) fn pieces(
    mut body: Body,
) -> impl futures_core::Stream<Item = Result<Bytes, troupe_mesh::body::BodyBroken>> + Send {
    futures_util::stream::poll_fn(move |context| body.poll_next(context))
}
