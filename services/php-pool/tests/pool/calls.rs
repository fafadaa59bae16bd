//! Calls and their replies.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use troupe_mesh::body::{self, Body};
use troupe_mesh::contract::Envelope;
use troupe_mesh::deadline::Deadline;
use troupe_mesh::failure::{Outcome, Stage as At, Started};
use troupe_mesh::port::Service as _;

use crate::support::*;

#[test]
fn a_function_answers() {
    on_runtime(async {
        let stage = Stage::start(&[HELLO], |_| {}).await;
        let pool = stage.handle();
        let reply = get(&pool, "hello?name=x").await.unwrap();
        assert_eq!(reply.head.status(), 200);
        assert_eq!(reply.head.field("content-type"), Some(&b"application/json"[..]));
        assert_eq!((reply.load.slots, reply.load.in_flight), (16, 1));
        assert_eq!(text(reply.body).await, r#"{"message":"hello","name":"x"}"#);
        assert_eq!(stage.pools.functions()["default"], ["hello"]);
        stage.pools.stop().await;
    });
}

#[test]
fn what_is_not_there_is_refused() {
    on_runtime(async {
        let stage = Stage::start(&[HELLO], |_| {}).await;
        let pool = stage.handle();
        let failure = get(&pool, "nothing").await.unwrap_err();
        assert_eq!((failure.outcome, failure.status, failure.started), (Outcome::Refused, Some(404), Started::No));
        let mut call = invoke("hello", "GET", "/", &[], Body::Empty);
        call.pool = "other".into();
        assert_eq!(send(&pool, call).await.unwrap_err().status, Some(404));
        let late = Envelope::new(invoke("hello", "GET", "/", &[], Body::Empty), Deadline::after(Duration::ZERO));
        let failure = pool.call(late).await.unwrap_err();
        assert_eq!((failure.outcome, failure.stage), (Outcome::Deadline, At::PhpPool));
        stage.pools.stop().await;
    });
}

#[test]
fn the_server_variables_are_those_of_the_request() {
    let dump = "fn() => [$_SERVER['REQUEST_METHOD'], $_SERVER['REQUEST_URI'], $_SERVER['HTTP_X_BYTES'], \
                $_SERVER['SCRIPT_NAME'], $_SERVER['PATH_INFO'], $_SERVER['PHP_SELF'], $_SERVER['HTTP_PROXY'] ?? null, \
                $_COOKIE, $_SERVER['REMOTE_ADDR'], $_SERVER['REQUEST_ID'], $_SERVER['HTTP_HOST']]";
    on_runtime(async move {
        let stage = Stage::start(&[("dump", dump)], |_| {}).await;
        let pool = stage.handle();
        let fields = [
            ("x-bytes", "\"};"),
            ("proxy", "http://evil"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("x-request-id", "r7"),
        ];
        let mut call = invoke("dump", "PUT", "/dump/more%21?x=1", &fields, Body::Empty);
        call.path_info = 5;
        let body = text(send(&pool, call).await.unwrap().body).await;
        let expected = r#"["PUT","/dump/more%21?x=1","\"};","/dump","/more!","/dump/more!",null,{"a":"1","b":"2"},"192.0.2.1","r7","example.test"]"#;
        assert_eq!(body, expected);
        stage.pools.stop().await;
    });
}

#[test]
fn two_threads_share_the_processes_and_answer_everything() {
    on_runtime(async {
        let stage = Stage::start(&[HELLO, PID], |config| {
            config.processes.min = 3;
            config.processes.max = 3;
        })
        .await;
        let threads: Vec<_> = (0..2)
            .map(|thread| {
                let pools = Arc::clone(&stage.pools);
                on_thread(move || async move {
                    let pool = pools.on_thread(thread);
                    let mut pids = BTreeSet::new();
                    let mut overloaded = 0;
                    for _ in 0..300 {
                        let calls = (0..8).map(|_| get(&pool, "pid"));
                        for reply in futures_util::future::join_all(calls).await {
                            match reply {
                                Ok(reply) => drop(pids.insert(text(reply.body).await)),
                                Err(failure) => {
                                    assert_eq!((failure.outcome, failure.started), (Outcome::Overloaded, Started::No));
                                    overloaded += 1;
                                }
                            }
                        }
                    }
                    (pids, overloaded)
                })
            })
            .collect();
        let results: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        let pids: BTreeSet<_> = results.iter().flat_map(|(pids, _)| pids.clone()).collect();
        assert_eq!(pids.len(), 3, "{pids:?}");
        stage.until("all idle", |load| load.in_flight == 0 && load.waiting == 0 && load.busy == 0).await;
        stage.pools.stop().await;
    });
}

#[test]
fn a_thread_takes_the_idle_process_of_another() {
    on_runtime(async {
        let stage = Stage::start(&[PID], |config| {
            config.processes.min = 1;
            config.processes.max = 1;
        })
        .await;
        let pool = stage.handle();
        let first = get_text(&pool, "pid").await;
        let pools = Arc::clone(&stage.pools);
        let second = on_thread(move || async move {
            let pool = pools.on_thread(1);
            let first = get_text(&pool, "pid").await;
            assert_eq!(get_text(&pool, "pid").await, first);
            first
        });
        assert_eq!(tokio::task::spawn_blocking(|| second.join().unwrap()).await.unwrap(), first);
        assert_eq!(get_text(&pool, "pid").await, first);
        stage.pools.stop().await;
    });
}

#[test]
fn calls_beyond_the_slots_are_answered_at_once() {
    on_runtime(async {
        let stage = Stage::start(&[("slow", "function () { usleep(300_000); return 'done'; }")], |config| {
            config.processes.max = 2;
        })
        .await;
        let pool = stage.handle();
        let calls = (0..10).map(|_| get(&pool, "slow"));
        let replies = futures_util::future::join_all(calls).await;
        let full: Vec<_> = replies.iter().filter_map(|reply| reply.as_ref().err()).collect();
        assert_eq!(full.len(), 8, "{replies:?}");
        for failure in full {
            assert_eq!((failure.outcome, failure.started), (Outcome::Overloaded, Started::No));
            assert!(failure.retry_after.is_some());
        }
        stage.pools.stop().await;
    });
}

#[test]
fn a_call_that_waits_gets_the_next_free_process_even_on_another_thread() {
    on_runtime(async {
        let stage = Stage::start(&[("slow", "function () { usleep(200_000); return 'done'; }")], |config| {
            config.processes.min = 0;
            config.processes.max = 1;
        })
        .await;
        // The first call waits for the fork, and then has the only process.
        let pool = stage.handle();
        assert_eq!(get_text(&pool, "slow").await, "done");
        let calls = [0, 1].map(|thread| {
            let pools = Arc::clone(&stage.pools);
            on_thread(move || async move {
                let pool = pools.on_thread(thread);
                loop {
                    match get(&pool, "slow").await {
                        Ok(reply) => return text(reply.body).await,
                        Err(failure) => assert_eq!(failure.outcome, Outcome::Overloaded),
                    }
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            })
        });
        for call in calls {
            assert_eq!(tokio::task::spawn_blocking(|| call.join().unwrap()).await.unwrap(), "done");
        }
        stage.pools.stop().await;
    });
}

#[test]
fn small_bodies_travel_inline_and_large_ones_on_disk_flat_in_memory() {
    const LEN: usize = 64 << 20;
    let measure = "fn() => [strlen(file_get_contents('php://input')), $_SERVER['CONTENT_LENGTH'], $_POST]";
    let digest = "function () { $in = fopen('php://input', 'r'); $n = 0; while (!feof($in)) { $n += strlen(fread($in, 65536)); } return [$n, $_SERVER['CONTENT_LENGTH']]; }";
    on_runtime(async move {
        let stage = Stage::start(&[("measure", measure), ("digest", digest)], |config| {
            config.memory_limit = "16MiB".parse().unwrap();
        })
        .await;
        let pool = stage.handle();
        let fields = [("content-type", "application/x-www-form-urlencoded")];
        let reply = send(&pool, invoke("measure", "POST", "/", &fields, full("a=1&b=2"))).await.unwrap();
        assert_eq!(text(reply.body).await, r#"[7,"7",{"a":"1","b":"2"}]"#);

        let before = resident();
        let (mut writer, reader) = body::channel(None);
        let send_body = async move {
            let piece = Bytes::from(vec![b'x'; 64 * 1024]);
            for _ in 0..LEN / piece.len() {
                writer.write(piece.clone()).await.unwrap();
            }
            writer.finish();
        };
        let call = send(&pool, invoke("digest", "PUT", "/", &[], Body::Stream(reader)));
        let (reply, ()) = tokio::join!(call, send_body);
        assert_eq!(text(reply.unwrap().body).await, format!(r#"[{LEN},"{LEN}"]"#));
        let grown = resident().saturating_sub(before);
        assert!(grown < (LEN / 4) as u64, "grown by {grown} bytes");
        stage.pools.stop().await;
    });
}

#[test]
fn a_spool_that_is_full_refuses_and_frees_what_it_took() {
    on_runtime(async {
        let stage = Stage::start(&[("len", "fn() => (string) strlen(file_get_contents('php://input'))")], |config| {
            config.spool_quota = "1MiB".parse().unwrap();
        })
        .await;
        let pool = stage.handle();
        let failure = send(&pool, invoke("len", "PUT", "/", &[], full(vec![0; 2 << 20]))).await.unwrap_err();
        assert_eq!((failure.outcome, failure.started), (Outcome::Overloaded, Started::No));
        assert!(!failure.lacks_place(), "the processes are idle");
        for _ in 0..5 {
            let reply = send(&pool, invoke("len", "PUT", "/", &[], full(vec![0; 900 << 10]))).await.unwrap();
            assert_eq!(text(reply.body).await, (900 << 10).to_string());
        }
        stage.pools.stop().await;
    });
}

#[test]
fn a_form_is_taken_apart_as_php_would() {
    let form = "function () { $f = $_FILES; foreach ($f as &$file) { unset($file['tmp_name'], $file['full_path']); } \
                return [$_POST, $f, file_get_contents($_FILES['doc']['tmp_name']), is_uploaded_file($_FILES['doc']['tmp_name'])]; }";
    on_runtime(async move {
        let stage = Stage::start(&[("form", form)], |_| {}).await;
        let pool = stage.handle();
        let body = "--B\r\nContent-Disposition: form-data; name=\"a[x]\"\r\n\r\n1&2\r\n\
                    --B\r\nContent-Disposition: form-data; name=\"doc\"; filename=\"C:\\\\dir\\\\a.txt\"\r\nContent-Type: text/plain\r\n\r\nline\r\n\r\n\
                    --B\r\nContent-Disposition: form-data; name=\"none\"; filename=\"\"\r\nContent-Type: application/octet-stream\r\n\r\n\r\n--B--\r\n";
        let fields = [("content-type", "multipart/form-data; boundary=B")];
        let reply = send(&pool, invoke("form", "POST", "/", &fields, full(body))).await.unwrap();
        let expected = r#"[{"a":{"x":"1&2"}},{"doc":{"name":"a.txt","type":"text/plain","error":0,"size":6},"none":{"name":"","type":"","error":4,"size":0}},"line\r\n",true]"#;
        assert_eq!(text(reply.body).await, expected);

        let failure = send(&pool, invoke("form", "POST", "/", &fields, full("--B\r\nnonsense"))).await.unwrap_err();
        assert_eq!((failure.outcome, failure.status), (Outcome::Refused, Some(400)));
        stage.pools.stop().await;
    });
}

/// All of it was held in memory, and looked through anew with each piece that came.
#[test]
fn a_form_in_which_no_part_begins_is_not_read_to_its_end() {
    on_runtime(async {
        let stage = Stage::start(&[("form", "fn() => [count($_POST), $_FILES['f']['size'] ?? null]")], |_| {}).await;
        let pool = stage.handle();
        let fields = [("content-type", "multipart/form-data; boundary=B")];
        for beginning in ["", "--B\r\nContent-Disposition: "] {
            let (mut writer, reader) = body::channel(None);
            let call = send(&pool, invoke("form", "POST", "/", &fields, Body::Stream(reader)));
            let endless = async {
                let mut written = 0;
                let mut piece = Bytes::from(beginning.to_owned() + &"x".repeat(8192));
                // Until nobody reads any more.
                while writer.write(piece.clone()).await.is_ok() && written < 64 << 20 {
                    written += piece.len();
                    piece = Bytes::from_static(&[b'x'; 8192]);
                }
                written
            };
            let (reply, written) = tokio::join!(call, endless);
            let failure = reply.unwrap_err();
            assert_eq!((failure.outcome, failure.status), (Outcome::Refused, Some(400)), "{failure:?}");
            assert!(written < 4 << 20, "{written} bytes were read");
        }
        // A part may be as long as it likes, and so may many of them.
        let large = "x".repeat(300_000);
        let part = |name: &str| {
            format!("--B\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"f\"\r\n\r\n{large}\r\n")
        };
        let whole = full(part("a") + &part("b") + &part("f") + "--B--\r\n");
        let reply = send(&pool, invoke("form", "POST", "/", &fields, whole)).await.unwrap();
        assert_eq!(text(reply.body).await, "[0,300000]");
        stage.pools.stop().await;
    });
}

/// What stands in the pipe is the running call's own, and stays there when its reply streams.
#[test]
fn a_streamed_body_is_whole_though_its_reply_begins_first() {
    let echo = "function () { usleep(100_000); yield 'go '; usleep(100_000); $in = fopen('php://input', 'r'); while (($line = fgets($in)) !== false) { yield trim($line) . ' '; } }";
    on_runtime(async move {
        let stage = Stage::start(&[("echo", echo)], |_| {}).await;
        let pool = stage.handle();
        let (mut writer, reader) = body::channel(None);
        let mut call = invoke("echo", "POST", "/", &[], Body::Stream(reader));
        call.flags.streaming = true;
        let reply = async { text(send(&pool, call).await.unwrap().body).await };
        let write = async {
            for number in 0..20 {
                writer.write(Bytes::from(format!("{number}\n"))).await.unwrap();
                tokio::task::yield_now().await;
            }
            writer.finish();
        };
        let (reply, ()) = tokio::join!(reply, write);
        let all: String = (0..20).map(|number| format!("{number} ")).collect();
        assert_eq!(reply, format!("go {all}"));
        stage.pools.stop().await;
    });
}

#[test]
fn a_streamed_body_reaches_the_function_piece_by_piece() {
    let echo = "function () { $in = fopen('php://input', 'r'); while (($line = fgets($in)) !== false) { yield strtoupper($line); } }";
    on_runtime(async move {
        let stage = Stage::start(&[("echo", echo)], |_| {}).await;
        let pool = stage.handle();
        let (mut writer, reader) = body::channel(None);
        let mut call = invoke("echo", "POST", "/", &[], Body::Stream(reader));
        call.flags.streaming = true;
        writer.write(Bytes::from_static(b"one\n")).await.unwrap();
        let mut reply = send(&pool, call).await.unwrap();
        assert_eq!(reply.body.next().await.unwrap().unwrap(), "ONE\n");
        // The answer to the first line was there before the second was sent.
        writer.write(Bytes::from_static(b"two\n")).await.unwrap();
        assert_eq!(reply.body.next().await.unwrap().unwrap(), "TWO\n");
        writer.finish();
        assert_eq!(reply.body.next().await, None);
        stage.until("the process is free", |load| load.busy == 0).await;
        stage.pools.stop().await;
    });
}

/// Nobody was left to send the rest: the function waited for it until its time had passed, and was told as one that hung.
#[test]
fn a_streamed_body_that_is_broken_off_holds_no_process() {
    let reads = "function () { file_put_contents($_GET['file'], getmypid()); return (string) strlen(file_get_contents('php://input')); }";
    on_runtime(async move {
        let stage = Stage::start(&[("reads", reads)], |config| {
            config.processes.max = 2;
            config.timeout = "90s".parse().unwrap();
        })
        .await;
        let pool = stage.handle();
        for round in 0..4 {
            let file = stage.root.path().join(format!("pid-{round}"));
            let (mut writer, reader) = body::channel(None);
            let target = format!("/reads?file={}", file.display());
            let mut call = invoke("reads", "POST", &target, &[], Body::Stream(reader));
            call.flags.streaming = true;
            let under_way = actix_rt::spawn({
                let pool = pool.clone();
                async move { send(&pool, call).await }
            });
            writer.write(Bytes::from_static(b"the first half")).await.unwrap();
            let mut pid = String::new();
            eventually("the function waits for the rest", || {
                pid = std::fs::read_to_string(&file).unwrap_or_default();
                !pid.is_empty()
            })
            .await;
            under_way.abort();
            eventually("it does not go on waiting", || !lives(&pid)).await;
        }
        let (mut writer, reader) = body::channel(None);
        let mut call = invoke("reads", "POST", "/reads?file=/dev/null", &[], Body::Stream(reader));
        call.flags.streaming = true;
        writer.write(Bytes::from_static(b"all of it")).await.unwrap();
        writer.finish();
        assert_eq!(text(send(&pool, call).await.unwrap().body).await, "9");
        stage.until("all are replaced", |load| load.processes == 2 && load.in_flight == 0).await;
        assert_eq!(stage.load().restarts, 0, "none of them failed");
        stage.pools.stop().await;
    });
}

#[test]
fn what_has_come_of_a_body_is_not_taken_for_all_of_it_when_the_reply_is_left() {
    let stores =
        "function () { echo getmypid(); flush(); file_put_contents($_GET['file'], file_get_contents('php://input')); }";
    on_runtime(async move {
        let stage = Stage::start(&[("stores", stores)], |config| config.timeout = "90s".parse().unwrap()).await;
        let file = stage.root.path().join("stored");
        let (mut writer, reader) = body::channel(None);
        let target = format!("/stores?file={}", file.display());
        let mut call = invoke("stores", "POST", &target, &[], Body::Stream(reader));
        call.flags.streaming = true;
        writer.write(Bytes::from_static(b"the first half")).await.unwrap();
        let mut reply = send(&stage.handle(), call).await.unwrap();
        let pid = String::from_utf8(reply.body.next().await.unwrap().unwrap().to_vec()).unwrap();
        drop(reply);
        eventually("it is ended", || !lives(&pid)).await;
        assert!(!file.exists());
        stage.pools.stop().await;
    });
}

#[test]
fn headers_of_the_connection_are_not_phps() {
    let headers = "function () { header('Connection: close'); header('Content-Length: 99'); header('X-Ok: yes'); header('Set-Cookie: a=1', false); header('Set-Cookie: b=2', false); return 'x'; }";
    on_runtime(async move {
        let stage = Stage::start(&[("headers", headers)], |_| {}).await;
        let reply = get(&stage.handle(), "headers").await.unwrap();
        assert_eq!(reply.head.field("connection"), None);
        assert_eq!(reply.head.field("content-length"), None);
        assert_eq!(reply.head.field("x-ok"), Some(&b"yes"[..]));
        let cookies: Vec<_> = reply.head.fields().filter(|(name, _)| *name == "Set-Cookie").collect();
        assert_eq!(cookies.len(), 2);
        stage.pools.stop().await;
    });
}

/// The frame was too long, and its process taken for one that breaks the protocol.
#[test]
fn headers_beyond_all_measure_are_dropped_and_the_reply_is_sent() {
    let many = "for ($i = 0; $i < 200; $i++) { header(\"X-$i: \" . str_repeat('a', 6000)); }";
    let long = "header('X-Long: ' . str_repeat('a', 2 << 20)); header('X-Short: yes');";
    let (whole, streamed) = ("return 'ok';", "echo 'ok'; flush();");
    let function = |headers, end| format!("function () {{ {headers} {end} }}");
    let functions = [function(many, whole), function(many, streamed), function(long, whole), function(long, streamed)];
    on_runtime(async move {
        let names = ["many", "many-streamed", "long", "long-streamed"];
        let functions: Vec<_> = names.iter().zip(&functions).map(|(name, code)| (*name, code.as_str())).collect();
        let stage = Stage::start(&functions, |_| {}).await;
        let pool = stage.handle();
        for name in names {
            let reply = get(&pool, name).await.unwrap();
            let short = reply.head.field("x-short");
            assert_eq!(short.is_some(), name.starts_with("long"), "what there is room for is sent");
            assert_eq!(text(reply.body).await, "ok", "{name}");
        }
        assert_eq!(stage.load().restarts, 0);
        stage.pools.stop().await;
    });
}

#[test]
fn slow_uploads_hold_no_process() {
    on_runtime(async {
        let stage = Stage::start(&[("len", "fn() => (string) strlen(file_get_contents('php://input'))")], |config| {
            config.processes.max = 2;
        })
        .await;
        let pool = stage.handle();
        let mut writers = Vec::new();
        let uploads: Vec<_> = (0..8)
            .map(|_| {
                let (writer, reader) = body::channel(None);
                writers.push(writer);
                let pool = std::rc::Rc::clone(&pool);
                actix_rt::spawn(async move { send(&pool, invoke("len", "PUT", "/", &[], Body::Stream(reader))).await })
            })
            .collect();
        for writer in &mut writers {
            writer.write(Bytes::from_static(&[b'x'; 1000])).await.unwrap();
        }
        assert_eq!(get_text(&pool, "len").await, "0");
        for (writer, upload) in writers.into_iter().zip(uploads) {
            writer.finish();
            assert_eq!(text(upload.await.unwrap().unwrap().body).await, "1000");
        }
        // One that breaks off is nobody's fault here, and starts nothing.
        let (writer, reader) = body::channel(None);
        drop(writer);
        let failure = send(&pool, invoke("len", "PUT", "/", &[], Body::Stream(reader))).await.unwrap_err();
        assert_eq!((failure.outcome, failure.started), (Outcome::Cancelled, Started::No));
        stage.pools.stop().await;
    });
}
