//! Multipart forms: PHP's command line cannot read them, so they are taken apart here, into urlencoded fields and files.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::StreamExt as _;
use multer::{Field, Multipart};
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use troupe_mesh::body::{Body, BodyBroken};
use troupe_mesh::failure::{Failure, Stage};

use crate::spool::{Form, Spool, Upload, cut_short, pieces};

/// Most bytes of all fields together, urlencoded: they travel in the frame of the call.
const MAX_FIELD_BYTES: usize = 512 * 1024;
/// Most parts of a form: PHP's `max_input_vars` with room for files and for fields that PHP leaves out.
const MAX_PARTS: usize = 2_000;

/// PHP's UPLOAD_ERR_INI_SIZE: longer than `upload_max_filesize`.
const TOO_LONG: u8 = 1;
/// PHP's UPLOAD_ERR_NO_FILE: the form had a place for a file and none was chosen.
const NO_FILE: u8 = 4;

/// Takes a form apart. Nothing of it is held in memory but its fields.
pub(crate) async fn parse(spool: &Spool, content_type: &[u8], body: Body) -> Result<Form, Failure> {
    let boundary = std::str::from_utf8(content_type)
        .ok()
        .and_then(|text| multer::parse_boundary(text).ok())
        .ok_or_else(|| Failure::refused(Stage::PhpPool, 400, "the form has no boundary"))?;
    let received = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&received);
    let counted = pieces(body).inspect(move |piece| {
        if let Ok(piece) = piece {
            counter.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
    });
    let mut form = Multipart::new(counted, boundary);
    let (mut fields, mut files, mut parts) = (String::new(), Vec::new(), 0);
    while let Some(part) = form.next_field().await.map_err(malformed)? {
        parts += 1;
        if parts > MAX_PARTS {
            return Err(Failure::refused(Stage::PhpPool, 413, "the form has too many parts"));
        }
        let Some(name) = part.name().map(str::to_owned) else { continue };
        if part.file_name().is_none() {
            field(&mut fields, &name, part).await?;
        } else if files.len() < spool.uploads().files {
            files.push(file(spool, name, part).await?);
        }
    }
    let received = received.load(Ordering::Relaxed);
    Ok(Form { fields: Some(fields), files: Some(files), body: None, received })
}

async fn field(fields: &mut String, name: &str, mut part: Field<'_>) -> Result<(), Failure> {
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

async fn file(spool: &Spool, field: String, mut part: Field<'_>) -> Result<Upload, Failure> {
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
        && cause.downcast_ref::<BodyBroken>().is_some()
    {
        return cut_short();
    }
    Failure::refused(Stage::PhpPool, 400, "the form is malformed").with_detail(error.to_string())
}
