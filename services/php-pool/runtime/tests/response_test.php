<?php

declare(strict_types=1);

/* Headers, cookies, sessions, streams. */

return [
    'the header() family, from everywhere' => static function (): void {
        $pool = new Pool([
            'h.php' => 'namespace App; return function () { header("X-A: 1"); \header("X-B: 2"); call_user_func("header", "X-C: 3"); array_map("header", ["X-D: 4"]); $h = header(...); $h("x-a: 5"); header("X-B: 6", false); header("Content-Type: text/plain"); header_remove("X-C"); return \json_encode([headers_list(), headers_sent(), http_response_code(201), http_response_code()]); };',
            'bad.php' => 'return function () { header("X-A: 1\r\nX-Evil: 1"); header("X-B: 1\0"); header("nonsense"); header("0: zero"); header("111:one  "); header("HTTP/1.1 418 Teapot"); return "x"; };',
            'status.php' => 'return function () { header("Location: /x", true, 308); return ""; };',
            'auth.php' => 'return function () { header("WWW-Authenticate: Basic realm=x"); return ""; };',
            'callback.php' => 'return function () { header_register_callback(function () { header("X-Late: 1"); header_remove("X-Early"); }); header("X-Early: 1"); return "x"; };',
            'cookies.php' => 'return function () { setcookie("a", "1 2"); header("Set-Cookie: b=2", false); setcookie("c", "3", ["expires" => 2000000000, "path" => "/p", "domain" => "d.example", "secure" => true, "httponly" => true, "samesite" => "Lax"]); setrawcookie("d", "4%20"); setcookie("gone", ""); return headers_list(); };',
            'after.php' => 'return function () { echo "x"; flush(); header("X-A: 1"); echo headers_sent() ? "sent" : "open"; };',
        ]);
        $p = $pool->process();
        $r = $p->call('h');
        same([['X-B: 2', 'X-D: 4', 'x-a: 5', 'X-B: 6', 'Content-Type: text/plain;charset=UTF-8'], false, 200, 201], [json_decode($r['body'], true)[0], ...array_slice(json_decode($r['body'], true), 1)]);
        same([201, ['X-B: 2', 'X-D: 4', 'x-a: 5', 'X-B: 6', 'Content-Type: text/plain;charset=UTF-8']], [$r['status'], $r['head']]);
        $r = $p->call('bad');
        same([418, ['Content-Type: text/html; charset=UTF-8', '0: zero', '111: one']], [$r['status'], $r['head']]);
        same([308, 401], [$p->call('status')['status'], $p->call('auth')['status']]);
        same(['Content-Type: text/html; charset=UTF-8', 'X-Late: 1'], $p->call('callback')['head']);
        $r = $p->call('cookies');
        $age = (string) (2000000000 - time());
        $expected = ['Set-Cookie: a=1%202', 'Set-Cookie: b=2', "Set-Cookie: c=3; expires=Wed, 18 May 2033 03:33:20 GMT; Max-Age=$age; path=/p; domain=d.example; secure; HttpOnly; SameSite=Lax", 'Set-Cookie: d=4%20', 'Set-Cookie: gone=deleted; expires=Thu, 01 Jan 1970 00:00:01 GMT; Max-Age=0'];
        same($expected, array_map(static fn (string $line): string => preg_replace('~Max-Age=[1-9]\d+~', "Max-Age=$age", $line), array_slice($r['head'], 0, 5)));
        $r = $p->call('after');
        same(['stream', 'xsent', false], [$r['kind'], $r['body'], in_array('X-A: 1', $r['head'], true)]);
        contains('headers already sent; called in ' . $pool->root, $p->errors());
        $pool->close();
    },

    'sessions of two users are never mixed' => static function (): void {
        $pool = new Pool([
            's.php' => 'return function () { session_start(); if (isset($_GET["name"])) { $_SESSION["name"] = $_GET["name"]; } return ["id" => session_id(), "name" => $_SESSION["name"] ?? null]; };',
            'none.php' => 'return fn () => [$_SESSION ?? null, session_id(), session_status()];',
            'renew.php' => 'return function () { session_start(); session_regenerate_id(true); return [session_id(), $_SESSION["name"] ?? null]; };',
            'own.php' => 'return function () { session_name("OWN"); session_set_cookie_params(["path" => "/own", "httponly" => true]); session_cache_limiter(""); session_start(); $_SESSION["n"] = ($_SESSION["n"] ?? 0) + 1; return [$_SESSION["n"], session_id()]; };',
            'exit.php' => 'return function () { session_start(); $_SESSION["name"] .= "!"; exit($_SESSION["name"]); };',
            'stream.php' => 'return function () { session_start(); $_SESSION["name"] = "streamed"; session_write_close(); yield session_id(); };',
        ], [], ['session.save_path' => sys_get_temp_dir()]);
        $p = $pool->process();
        $id = static fn (array $reply): ?string => preg_match('~^Set-Cookie: PHPSESSID=([^;]+); path=/$~m', implode("\n", $reply['head']), $match) === 1 ? $match[1] : null;
        $alice = $id($r = $p->call('s', ['QUERY_STRING' => 'name=Alice']));
        same(json_encode(['id' => $alice, 'name' => 'Alice']), $r['body']);
        foreach (['Expires: Thu, 19 Nov 1981 08:52:00 GMT', 'Cache-Control: no-store, no-cache, must-revalidate', 'Pragma: no-cache'] as $line) {
            contains($line, $r['head']);
        }
        $bob = $id($r = $p->call('s'));
        same(json_encode(['id' => $bob, 'name' => null]), $r['body'], 'a request without a cookie gets a session of its own');
        same(false, $alice === $bob);
        $p->call('s', ['QUERY_STRING' => 'name=Bob', 'HTTP_COOKIE' => "PHPSESSID=$bob"]);
        for ($i = 0; $i < 3; $i++) {
            foreach ([[$alice, 'Alice'], [$bob, 'Bob']] as [$session, $name]) {
                $r = $p->call('s', ['HTTP_COOKIE' => "PHPSESSID=$session"]);
                same([json_encode(['id' => $session, 'name' => $name]), null], [$r['body'], $id($r)]);
                same('[null,"",1]', $p->call('none', ['HTTP_COOKIE' => "PHPSESSID=$session"])['body']);
            }
            same('Alice' . str_repeat('!', 1), substr($p->call('exit', ['HTTP_COOKIE' => "PHPSESSID=$alice"])['body'], 0, 6));
            $p->call('s', ['QUERY_STRING' => 'name=Alice', 'HTTP_COOKIE' => "PHPSESSID=$alice"]);
        }
        $new = $id($r = $p->call('renew', ['HTTP_COOKIE' => "PHPSESSID=$bob"]));
        same(json_encode([$new, 'Bob']), $r['body']);
        $r = $p->call('own');
        [$n, $own] = json_decode($r['body']);
        same([1, ['Content-Type: application/json', "Set-Cookie: OWN=$own; path=/own; HttpOnly"]], [$n, $r['head']]);
        same(json_encode([2, $own]), $p->call('own', ['HTTP_COOKIE' => "OWN=$own; PHPSESSID=$alice"])['body']);
        same(json_encode(['id' => $alice, 'name' => 'Alice']), $p->call('s', ['HTTP_COOKIE' => "PHPSESSID=$alice"])['body'], 'name and parameters are back');
        $r = $p->call('stream', ['HTTP_COOKIE' => "PHPSESSID=$alice"]);
        same($alice, $r['body']);
        $pool->close();
    },

    'generators are streamed piece by piece' => static function (): void {
        $pool = new Pool([
            'sse.php' => 'return function () { header("Content-Type: text/event-stream"); for ($i = 0; $i < 3; $i++) { echo "id: $i\n"; yield "data: $i\n\n"; } };',
            'json.php' => 'use Troupe\Response; return fn () => new Response((function () { yield ["a" => 1]; yield ["b" => 2]; })(), 202, ["Content-Type" => "application/jsonl"]);',
            'none.php' => 'return function () { if (false) { yield 1; } };',
            'breaks.php' => 'return function () { yield "a"; throw new Exception("middle"); };',
            'early.php' => 'return function () { header("X-A: 1"); throw new Exception("before"); yield 1; };',
            'exits.php' => 'return function () { yield "a"; echo "b"; exit("c"); };',
        ]);
        $p = $pool->process();
        $r = $p->call('sse');
        same(['stream', "end of stream", 200, ["id: 0\ndata: 0\n\n", "id: 1\ndata: 1\n\n", "id: 2\ndata: 2\n\n"]], [$r['kind'], $r['last'], $r['status'], $r['pieces']]);
        contains('Content-Type: text/event-stream;charset=UTF-8', $r['head']);
        $r = $p->call('json');
        same([202, ["{\"a\":1}\n", "{\"b\":2}\n"]], [$r['status'], $r['pieces']]);
        same(['reply', 200, ''], [($r = $p->call('none'))['kind'], $r['status'], $r['body']]);
        same(['stream', 'error', 'a'], [($r = $p->call('breaks'))['kind'], $r['last'], $r['body']]);
        same('error', $p->call('early')['kind']);
        same(['stream', 'end of stream', 'abc'], [($r = $p->call('exits'))['kind'], $r['last'], $r['body']]);
        $r = $p->call('sse', ['REQUEST_METHOD' => 'HEAD']);
        same(['stream', 'end of stream'], [$r['kind'], $r['last']]);
        $pool->close();
    },

    'flush() makes a stream, fastcgi_finish_request() ends the reply' => static function (): void {
        $pool = new Pool([
            'flush.php' => 'return function () { echo "a"; flush(); ob_start(); echo "b"; ob_flush(); flush(); echo "c"; };',
            'finish.php' => 'return function () { echo "done"; fastcgi_finish_request(); echo "unseen"; file_put_contents(__DIR__ . "/after", "x"); };',
            'late.php' => 'return function () { echo "a"; flush(); echo "b"; fastcgi_finish_request(); echo "unseen"; };',
            'big.php' => 'return fn () => str_repeat("0123456789abcdef", 65536);',
            'echo.php' => 'return function () { for ($i = 0; $i < 1024; $i++) { echo str_repeat("x", 1024); } };',
        ]);
        $p = $pool->process();
        $r = $p->call('flush');
        same(['stream', ['a', 'b', 'c'], false, false], [$r['kind'], $r['pieces'], $r['finite'], $r['done']]);
        $r = $p->call('finish');
        same(['stream', 'done', true, true], [$r['kind'], $r['body'], $r['finite'], $r['done']]);
        contains('Content-Length: 4', $r['head']);
        $r = $p->call('late');
        same(['stream', 'ab', false, true], [$r['kind'], $r['body'], $r['finite'], $r['done']], 'a stream that is finished');
        $r = $p->call('flush', ['REQUEST_METHOD' => 'HEAD']);
        same(['stream', true, true], [$r['kind'], $r['finite'], $r['done']], 'a head has nothing to wait for');
        same(true, is_file("$pool->root/after"));
        $r = $p->call('big');
        same(['stream', 1 << 20, md5(str_repeat('0123456789abcdef', 65536)), true], [$r['kind'], strlen($r['body']), md5($r['body']), max(array_map(strlen(...), $r['pieces'])) <= 65536]);
        same([true, false], [$r['finite'], $r['done']]);
        contains('Content-Length: 1048576', $r['head']);
        $r = $p->call('echo');
        same([1 << 20, true, false], [strlen($r['body']), $r['finite'], $r['done']]);
        $pool->close();
    },

    'a reader that went away stops the generator and the process' => static function (): void {
        $pool = new Pool([
            'gen.php' => 'return function () { try { while (true) { yield str_repeat("x", 1000); usleep(1000); } } finally { file_put_contents(__DIR__ . "/finally", "ran"); } };',
            'echo.php' => 'return function () { register_shutdown_function(fn () => file_put_contents(__DIR__ . "/shutdown", "ran")); set_error_handler(function ($n, $m) { throw new Exception($m); }); while (true) { echo "x"; flush(); usleep(1000); } };',
        ]);
        foreach (['gen' => 'finally', 'echo' => 'shutdown'] as $function => $mark) {
            $p = $pool->process();
            $p->send($function);
            same('head', $p->frame()['kind']);
            fclose($p->out);
            same(0, $pool->event('exited')['code'], $function);
            same(true, is_file("$pool->root/$mark"), $mark);
        }
        $pool->close();
    },

    'a function that ignores that its reader went away runs to its end' => static function (): void {
        $pool = new Pool([
            'on.php' => 'return function () {
                $before = ignore_user_abort(true);
                while (!connection_aborted()) { echo "x"; flush(); usleep(1000); }
                echo "y"; flush();
                file_put_contents(__DIR__ . "/end", json_encode([$before, ignore_user_abort(), connection_aborted(), connection_status()]));
            };',
            'ignore.php' => 'return fn () => [ignore_user_abort(true), ignore_user_abort(), connection_aborted(), connection_status()];',
        ]);
        $p = $pool->process();
        for ($i = 0; $i < 2; $i++) {
            same('[0,1,0,0]', $p->call('ignore')['body'], 'until the end of the call');
        }
        $p->send('on');
        same('head', $p->frame()['kind']);
        fclose($p->out);
        same(0, $pool->event('exited')['code']);
        same('[0,1,1,1]', file_get_contents("$pool->root/end"));
        $pool->close();
    },

    'expired calls do not start; two calls at once keep their order' => static function (): void {
        $pool = new Pool(['n.php' => 'return function () { static $n = 0; return ["n" => ++$n, "q" => $_GET["q"] ?? null]; };']);
        $p = $pool->process();
        same('expired', $p->call('n', deadline: hrtime(true) - 1)['kind']);
        same('{"n":1,"q":null}', $p->call('n', deadline: hrtime(true) + 10_000_000_000)['body']);
        $p->send('n', ['QUERY_STRING' => 'q=0']);
        for ($i = 1; $i < 100; $i++) {
            $p->send('n', ['QUERY_STRING' => "q=$i"]);
            same(json_encode(['n' => $i + 1, 'q' => (string) ($i - 1)]), $p->reply()['body']);
        }
        $p->reply();
        $r = $p->call('n', flags: 4);
        same([true, '{"n":102,"q":null}'], [$r['recycle'], $r['body']]);
        same('end', $p->frame()['kind']);
        $pool->close();
    },
];
