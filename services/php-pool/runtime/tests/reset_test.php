<?php

declare(strict_types=1);

/* What one call leaves to the next: nothing that PHP itself would have put back between two requests. */

return [
    'two users, every leak there is' => static function (): void {
        $probe = '$probe = static fn () => [
            "get" => $_GET, "post" => $_POST, "cookie" => $_COOKIE, "files" => $_FILES, "request" => $_REQUEST, "env" => $_ENV, "session" => $_SESSION ?? null,
            "server" => array_intersect_key($_SERVER, ["LEAK" => 1, "HTTP_COOKIE" => 1, "PHP_AUTH_USER" => 1, "HTTP_AUTHORIZATION" => 1]),
            "globals" => $GLOBALS["leak"] ?? null, "input" => file_get_contents("php://input"), "headers" => headers_list(), "code" => http_response_code(),
            "ini" => [ini_get("precision"), ini_get("memory_limit"), ini_get("max_execution_time"), get_include_path(), ini_get("display_errors"), ini_get("session.name")],
            "locale" => setlocale(LC_ALL, "0"), "tz" => date_default_timezone_get(), "cwd" => getcwd(), "umask" => umask(), "level" => ob_get_level(), "reporting" => error_reporting(),
            "putenv" => getenv("LEAK"), "path" => getenv("PATH") !== false, "eh" => (function () { $h = set_error_handler(null); restore_error_handler(); return $h === null; })(),
            "xh" => (function () { $h = set_exception_handler(null); restore_exception_handler(); return $h === null; })(), "gc" => gc_enabled(), "libxml" => libxml_use_internal_errors(),
            "last" => error_get_last(), "aborted" => connection_aborted(), "wrappers" => in_array("php", stream_get_wrappers(), true),
        ];';
        $pool = new Pool([
            'probe.php' => "$probe return \$probe;",
            'dirty.php' => 'return function () {
                global $leak; $leak = "mine";
                $_GET["x"] = $_POST["x"] = $_COOKIE["x"] = $_FILES["x"] = $_REQUEST["x"] = $_ENV["x"] = $_SERVER["LEAK"] = 1;
                session_name("OTHER"); session_start(); $_SESSION["secret"] = 1;
                header("X-Leak: 1"); http_response_code(404); setcookie("leak", "1");
                ini_set("precision", "3"); ini_set("memory_limit", "300M"); set_time_limit(60); set_include_path("/tmp"); ini_set("display_errors", "1");
                setlocale(LC_ALL, "C.UTF-8", "C.utf8", "en_US.UTF-8"); date_default_timezone_set("Asia/Tokyo"); chdir("/"); umask(0); error_reporting(0);
                putenv("LEAK=1"); putenv("PATH"); gc_disable(); libxml_use_internal_errors(true); mt_srand(42);
                for ($i = 0; $i < 3; $i++) { set_error_handler(fn () => true); set_exception_handler(fn () => true); }
                register_shutdown_function(function () { ob_start(); echo "left"; });
                ob_start(); ob_start(); echo @$undefined; @trigger_error("old");
                if (isset($_GET["exit"])) { exit; }
                return ["user" => "alice"];
            };',
            'random.php' => 'return fn () => [mt_rand(), mt_rand()];',
        ], [], ['session.save_path' => sys_get_temp_dir()]);
        $p = $pool->process();
        $clean = $p->call('probe')['body'];
        same($clean, $pool->process()->call('probe')['body']);
        $drawn = [];
        foreach (['', 'exit=1', '', 'exit=1'] as $query) {
            $r = $p->call('dirty', ['REQUEST_METHOD' => 'POST', 'QUERY_STRING' => $query, 'HTTP_COOKIE' => 'a=b', 'HTTP_AUTHORIZATION' => 'Basic YTpi', 'CONTENT_TYPE' => 'application/x-www-form-urlencoded'], 'field=value');
            same(404, $r['status']);
            $drawn[] = $p->call('random')['body'];
            same($clean, $p->call('probe')['body'], "after dirty?$query");
        }
        same(4, count(array_unique($drawn)), 'the seed of one call is not the next one\'s');
        $pool->close();
    },

    'what boot code is told of one call shows nothing of the call before' => static function (): void {
        $pool = new Pool([
            'vendor/autoload.php' => 'set_error_handler(function ($n, $m) { if (!(error_reporting() & $n)) { return false; } throw new \ErrorException($m); }); set_exception_handler(function ($e) { echo json_encode([$_COOKIE, $_POST, $_FILES, $_REQUEST]); });',
            'x.php' => 'return fn () => [count($_POST)];',
        ]);
        $p = $pool->process();
        $form = ['REQUEST_METHOD' => 'POST', 'HTTP_COOKIE' => 'a=b', 'CONTENT_TYPE' => 'application/x-www-form-urlencoded'];
        same('[1]', $p->call('x', $form, 'secret=1')['body']);
        $many = implode('&', array_map(static fn (int $n): string => "a$n=", range(1, 1001)));
        same('[[],[],[],[]]', $p->call('x', ['QUERY_STRING' => $many])['body']);
        $pool->close();
    },

    'globals of code that is loaded late are gone, whatever the code before it mentions' => static function (): void {
        foreach (['chdir', 'umask', 'putenv', 'eval'] as $word) {
            $pool = new Pool([
                'set.php' => "/* $word */ return function () { require_once __DIR__ . '/_late.inc'; remember_user(\$_GET['user']); };",
                '_late.inc' => 'function remember_user($user) { global $who; $who = $user; } function remembered_user() { global $who; return ["who" => $who]; }',
                'see.php' => 'return fn () => remembered_user();',
            ]);
            $p = $pool->process();
            same(204, $p->call('set', ['QUERY_STRING' => 'user=alice'])['status']);
            same('{"who":null}', $p->call('see')['body'], $word);
            $pool->close();
        }
    },

    'globals of code that nobody can read any more are gone' => static function (): void {
        // Encoded, so that the code that makes it mentions nothing.
        $late = base64_encode('<?php function remember_user() { global $who; return $who .= $_GET["user"]; }');
        $pool = new Pool([
            'made.php' => 'return function () {
                $file = __DIR__ . "/_made.inc";
                if (!function_exists("remember_user")) { file_put_contents($file, base64_decode("' . $late . '")); include $file; unlink($file); }
                return ["who" => remember_user()];
            };',
        ]);
        $p = $pool->process();
        foreach (['alice', 'bob'] as $user) {
            same(json_encode(['who' => $user]), $p->call('made', ['QUERY_STRING' => "user=$user"])['body']);
        }
        $pool->close();
        $pool = new Pool([
            'evaluated.php' => 'return function () { return ["who" => eval(base64_decode("' . base64_encode('global $me; return $me .= $_GET["user"];') . '"))]; };',
        ]);
        $p = $pool->process();
        foreach (['alice', 'bob'] as $user) {
            same(json_encode(['who' => $user]), $p->call('evaluated', ['QUERY_STRING' => "user=$user"])['body']);
        }
        $pool->close();
    },

    'what a file was like in one call is not believed in the next' => static function (): void {
        $pool = new Pool(['state.php' => 'return function () { $file = __DIR__ . "/flag"; return [is_file($file), @filesize($file)]; };']);
        $p = $pool->process();
        file_put_contents("$pool->root/flag", 'x');
        same('[true,1]', $p->call('state')['body']);
        file_put_contents("$pool->root/flag", 'longer');
        same('[true,6]', $p->call('state')['body']);
        unlink("$pool->root/flag");
        same('[false,false]', $p->call('state')['body']);
        $pool->close();
    },

    'what sessions were set to ends with the call' => static function (): void {
        $pool = new Pool([
            'options.php' => 'return function () { session_start(["name" => "ADMIN", "cookie_path" => "/admin", "cookie_lifetime" => 99]); $_SESSION["n"] = 1; return session_name(); };',
            'logout.php' => 'return function () { session_start(["name" => "ADMIN"]); session_destroy(); return session_name(); };',
            'handler.php' => 'return function () { session_set_save_handler(new class extends SessionHandler {}); session_start(); session_destroy(); return session_module_name(); };',
            'plain.php' => 'return function () { $m = session_module_name(); session_start(); $p = session_get_cookie_params(); return [$m, session_name(), $p["path"], $p["lifetime"]]; };',
        ], [], ['session.save_path' => sys_get_temp_dir()]);
        $p = $pool->process();
        foreach (['options' => 'ADMIN', 'logout' => 'ADMIN', 'handler' => 'user'] as $function => $says) {
            same($says, $p->call($function)['body']);
            same('["files","PHPSESSID","/",0]', $p->call('plain')['body'], $function);
        }
        $pool->close();
    },

    'handlers that boot code has set stay' => static function (): void {
        $pool = new Pool([
            'vendor/autoload.php' => 'set_error_handler(function ($n, $m) { echo "[$m]"; return true; }); date_default_timezone_set("Europe/Berlin"); ini_set("precision", "5");',
            'warn.php' => 'return function () { echo $undefined; echo date_default_timezone_get(), ini_get("precision"); };',
            'push.php' => 'return function () { set_error_handler(fn () => true); set_error_handler(fn () => true); ini_set("precision", "7"); restore_error_handler(); };',
            'pop.php' => 'return function () { restore_error_handler(); restore_error_handler(); };',
        ]);
        $p = $pool->process();
        foreach (['push', 'pop', 'push'] as $function) {
            $p->call($function);
            same('[Undefined variable $undefined]Europe/Berlin5', $p->call('warn')['body'], "after $function");
        }
        $pool->close();
    },

    'a process that has grown is replaced after its call' => static function (): void {
        $pool = new Pool(['grow.php' => 'return function () { static $kept = []; $kept[] = str_repeat("x", 3 << 20); return [count($kept)]; };'], ['memory_soft' => 8 << 20]);
        $p = $pool->process();
        same([false, false, true], array_map(static fn (): bool => $p->call('grow')['recycle'], [1, 2, 3]));
        same('end', $p->frame()['kind']);
        $pool->close();
    },

    'nothing grows' => static function (): void {
        $pool = new Pool([
            'work.php' => 'return function () { setcookie("a", "b"); session_start(); $_SESSION["n"] = 1; ini_set("precision", "5"); register_shutdown_function(fn () => 1); set_error_handler(fn () => true); ob_start(); echo "x"; if (isset($_GET["exit"])) { exit; } return [1]; };',
            'memory.php' => 'return fn () => [memory_get_usage(), count(scandir("/proc/self/fd"))];',
        ], [], ['session.save_path' => sys_get_temp_dir()]);
        $p = $pool->process();
        $round = static function (int $calls, string $body) use ($p): array {
            for ($i = 0; $i < $calls; $i++) {
                $p->call('work', ['REQUEST_METHOD' => 'POST', 'QUERY_STRING' => $i % 2 ? 'exit=1' : '', 'HTTP_COOKIE' => 'PHPSESSID=nothinggrowsnothinggrows'], $body);
                // What it logs must be read, or it waits for that.
                $p->errors();
            }
            return json_decode($p->call('memory')['body']);
        };
        // PHP keeps 164 bytes for each stream wrapper it ever registered, and php://input is one: so much grows, and no more.
        foreach (['' => 10, 'body' => 200] as $body => $bytes) {
            $before = $round(200, $body);
            $after = $round(2000, $body);
            same([true, $before[1]], [$after[0] - $before[0] < 2000 * $bytes, $after[1]], "memory went from $before[0] to $after[0]");
        }
        $pool->close();
    },
];
