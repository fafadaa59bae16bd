//! Errors that are not stored, and what is: those that are about one request take nothing from others, those that are about the
//! resource take its place.

use std::time::{Duration, Instant};

use troupe_gateway::Running;
use troupe_mesh::body::Body;

use super::{Calls, FRESH, cached, on, status, together::together};
use crate::support::*;

/// About who asks, how or when.
const FOR_ONE: [u16; 9] = [400, 401, 403, 406, 409, 412, 416, 429, 431];
/// About what is asked for.
const FOR_ALL: [u16; 5] = [404, 405, 410, 414, 451];

/// An origin that answers the status that a request wishes for.
fn wished() -> (Running, Calls) {
    cached(on(), |envelope, n| async move {
        let wish = envelope.call.head.field("x-wish").and_then(|wish| std::str::from_utf8(wish).ok()?.parse().ok());
        Ok(match wish {
            Some(status) => reply(status, &[], Body::Empty),
            None => {
                // Long enough to be waited for.
                tokio::time::sleep(Duration::from_millis(200)).await;
                reply(200, &[FRESH], Body::full(format!("{n}").into()))
            }
        })
    })
}

fn wish(client: &mut Client, status: u16) {
    let head = format!("GET /a HTTP/1.1\r\nHost: a.example\r\nCache-Control: no-cache\r\nX-Wish: {status}\r\n\r\n");
    assert_eq!(client.send(head).response(false).status, status);
}

#[test]
fn an_error_that_is_about_one_request_takes_nothing_from_others() {
    for error in FOR_ONE {
        let (running, calls) = wished();
        let mut client = Client::connect(&running);
        wish(&mut client, error);
        // Nor does it make them fetch each for itself what is not stored yet.
        assert!(together(&running, 20, "/a").iter().all(|answer| answer.text() == "2"), "{error}");
        wish(&mut client, error);
        let after = client.get("/a");
        assert!(after.text() == "2" && status(&after).starts_with("troupe-l1; hit"), "{error}: {}", after.head);
        assert_eq!(calls.count(), 3, "{error}");
    }
}

#[test]
fn an_error_that_is_about_the_resource_takes_the_place_of_what_is_stored() {
    for error in FOR_ALL {
        let (running, calls) = wished();
        let mut client = Client::connect(&running);
        assert_eq!(client.get("/a").text(), "1");
        wish(&mut client, error);
        assert_eq!(client.get("/a").text(), "3", "{error}");
        assert_eq!(calls.count(), 3, "{error}");
    }
}

/// What is given while a new one is fetched stays when there is none for the moment, and goes with the resource.
#[test]
fn a_refresh_that_is_refused_takes_away_what_is_given_only_if_the_resource_is_gone() {
    for error in [429, 404] {
        let (running, calls) = cached(on(), move |_, n| async move {
            let stale = [("Cache-Control", "max-age=100, stale-while-revalidate=600"), ("Age", "100")];
            Ok(match n {
                1 => reply(200, &stale, Body::full("given".into())),
                _ => reply(error, &[], Body::Empty),
            })
        });
        let mut client = Client::connect(&running);
        assert_eq!(client.get("/a").text(), "given");
        let began = Instant::now();
        let mut answer = client.get("/a");
        // Refused several times, or once and for all.
        while answer.status == 200 && calls.count() < 5 {
            assert_eq!(answer.text(), "given");
            assert!(began.elapsed() < PATIENCE, "{error}");
            answer = client.get("/a");
        }
        assert_eq!(answer.status, if error == 404 { 404 } else { 200 }, "{}", answer.head);
    }
}
