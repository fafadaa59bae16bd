//! Multipart forms: PHP's command line cannot read them, so they are taken apart here, into urlencoded fields and files.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, ready};

use futures_core::Stream as _;
use futures_util::stream::poll_fn;
use multer::{Field, Multipart};
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use troupe_mesh::body::{Body, BodyBroken};
use troupe_mesh::failure::{Failure, Stage};

use crate::spool::{Form, Spool, Upload, cut_short, pieces};

/// Most bytes of all fields together, urlencoded: they travel in the frame of the call.
const MAX_FIELD_BYTES: usize = 512 * 1024;
/// Most parts of a form: PHP's `max_input_vars` with room for files and for fields that PHP leaves out.
const MAX_PARTS: usize = 2_000;
/// Most bytes, but for a piece of the body, in which no part begins: multer keeps them all, and looks through them with each piece that comes.
const MAX_ASTRAY: u64 = 64 * 1024;
/// A part is read.
const IN_A_PART: u64 = u64::MAX;

/// PHP's UPLOAD_ERR_INI_SIZE: longer than `upload_max_filesize`.
const TOO_LONG: u8 = 1;
/// PHP's UPLOAD_ERR_NO_FILE: the form had a place for a file and none was chosen.
const NO_FILE: u8 = 4;

/// Why a body is not read any further.
#[derive(Debug, thiserror::Error)]
enum Stopped {
    #[error(transparent)]
    Broken(#[from] BodyBroken),
    #[error("no part begins within {MAX_ASTRAY} bytes")]
    Astray,
}

/// Takes a form apart. Nothing of it is held in memory but its fields, and the heads of its parts.
pub(crate) async fn parse(spool: &Spool, content_type: &[u8], body: Body) -> Result<Form, Failure> {
    let boundary = std::str::from_utf8(content_type)
        .ok()
        .and_then(|text| multer::parse_boundary(text).ok())
        .ok_or_else(|| Failure::refused(Stage::PhpPool, 400, "the form has no boundary"))?;
    let received = Arc::new(AtomicU64::new(0));
    // Bytes that may still come before a part has to begin.
    let astray = Arc::new(AtomicU64::new(MAX_ASTRAY));
    let (counter, left) = (Arc::clone(&received), Arc::clone(&astray));
    let mut pieces = Box::pin(pieces(body));
    let mut gave = false;
    let counted = poll_fn(move |context| {
        let before = left.load(Ordering::Relaxed);
        if before != IN_A_PART && std::mem::take(&mut gave) {
            // multer takes all that is ready before it looks at any of it: it is to look at each piece.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let piece = match ready!(pieces.as_mut().poll_next(context)) {
            Some(Ok(piece)) => piece,
            ended => return Poll::Ready(ended.map(|broken| broken.map_err(Stopped::from))),
        };
        gave = true;
        counter.fetch_add(piece.len() as u64, Ordering::Relaxed);
        match before {
            0 => return Poll::Ready(Some(Err(Stopped::Astray))),
            IN_A_PART => {}
            before => left.store(before.saturating_sub(piece.len() as u64), Ordering::Relaxed),
        }
        Poll::Ready(Some(Ok(piece)))
    });
    let mut form = Multipart::new(counted, boundary);
    let (mut fields, mut files, mut parts) = (String::new(), Vec::new(), 0);
    while let Some(mut part) = form.next_field().await.map_err(malformed)? {
        astray.store(IN_A_PART, Ordering::Relaxed);
        parts += 1;
        if parts > MAX_PARTS {
            return Err(Failure::refused(Stage::PhpPool, 413, "the form has too many parts"));
        }
        match part.name().map(str::to_owned) {
            None => {}
            Some(name) if part.file_name().is_none() => field(&mut fields, &name, &mut part).await?,
            Some(name) if files.len() < spool.uploads().files => files.push(file(spool, name, &mut part).await?),
            Some(_) => {}
        }
        // What is left of it belongs to it still.
        while part.chunk().await.map_err(malformed)?.is_some() {}
        astray.store(MAX_ASTRAY, Ordering::Relaxed);
    }
    let received = received.load(Ordering::Relaxed);
    Ok(Form { fields: Some(fields), files: Some(files), body: None, received })
}

async fn field(fields: &mut String, name: &str, part: &mut Field<'_>) -> Result<(), Failure> {
    if !fields.is_empty() {
        fields.push('&');
    }
    fields.extend(percent_encode(name.as_bytes(), NON_ALPHANUMERIC));
    fields.push('=');
    while let Some(piece) = part.chunk().await.map_err(malformed)? {
        // Encoding makes a byte three at most; what is too long without it need not be encoded.
        if fields.len() + piece.len() <= MAX_FIELD_BYTES {
            fields.extend(percent_encode(&piece, NON_ALPHANUMERIC));
        }
        if fields.len() + piece.len() > MAX_FIELD_BYTES {
            return Err(Failure::refused(Stage::PhpPool, 413, "the form's fields are too long"));
        }
    }
    Ok(())
}

async fn file(spool: &Spool, field: String, part: &mut Field<'_>) -> Result<Upload, Failure> {
    let content_type = part.content_type().map(ToString::to_string).unwrap_or_default();
    // Some clients send a whole path: the runtime tells it and the last part of it apart, as PHP does.
    let file_name = part.file_name().unwrap_or_default().to_owned();
    if file_name.is_empty() {
        return Ok(Upload { field, file_name, content_type: String::new(), error: NO_FILE, content: None });
    }
    let mut writer = spool.file().await?;
    let mut len = 0;
    while let Some(piece) = part.chunk().await.map_err(malformed)? {
        len += piece.len() as u64;
        if len > spool.uploads().file_size {
            // The rest is read and dropped with the part.
            return Ok(Upload { field, file_name, content_type: String::new(), error: TOO_LONG, content: None });
        }
        writer.write(&piece).await?;
    }
    let content = Some(writer.finish().await?);
    Ok(Upload { field, file_name, content_type, error: 0, content })
}

fn malformed(error: multer::Error) -> Failure {
    if let multer::Error::StreamReadFailed(cause) = &error
        && let Some(Stopped::Broken(_)) = cause.downcast_ref::<Stopped>()
    {
        return cut_short();
    }
    Failure::refused(Stage::PhpPool, 400, "the form is malformed").with_detail(error.to_string())
}
