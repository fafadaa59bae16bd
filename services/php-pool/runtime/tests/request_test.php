<?php

declare(strict_types=1);

/* What a function sees of its request. */

return [
    '$_SERVER is what php-fpm makes of the same request' => static function (): void {
        $pool = new Pool(['v1/dump.php' => 'return function () { $s = $_SERVER; ksort($s); return [$s, $_GET, $_POST, $_COOKIE, $_FILES, $_REQUEST, $_ENV, getallheaders()]; };']);
        $p = $pool->process();
        [$server, $get, $post, $cookie, $files, $request, $env, $headers] = json_decode($p->call('v1/dump', [
            'REQUEST_METHOD' => 'POST', 'QUERY_STRING' => 'a=1&b[]=2&b[]=3&c.d=4+5', 'REQUEST_URI' => '/api/v1/dump/x?a=1', 'PATH_INFO' => '/x', 'CONTENT_TYPE' => 'application/x-www-form-urlencoded',
            'HTTP_COOKIE' => 'k=v%20w; k=second; a.b=1+1; arr[x]=1; arr[y]=2; =none; flag', 'HTTP_AUTHORIZATION' => 'Basic ' . base64_encode('me:pa:ss'),
        ], 'a=9&f[g][h]=1')['body'], true);
        same(time() - $server['REQUEST_TIME'] < 10 && (int) $server['REQUEST_TIME_FLOAT'] === $server['REQUEST_TIME'], true);
        unset($server['REQUEST_TIME'], $server['REQUEST_TIME_FLOAT'], $server['HTTP_COOKIE']);
        same([
            'CONTENT_LENGTH' => '13', 'CONTENT_TYPE' => 'application/x-www-form-urlencoded', 'DOCUMENT_ROOT' => $pool->root, 'DOCUMENT_URI' => '/api/v1/dump/x', 'GATEWAY_INTERFACE' => 'CGI/1.1', 'HTTP_ACCEPT' => '*/*',
            'HTTP_AUTHORIZATION' => 'Basic bWU6cGE6c3M=', 'HTTP_HOST' => 'localhost:8080', 'HTTP_USER_AGENT' => 'test/1', 'PATH_INFO' => '/x', 'PHP_AUTH_PW' => 'pa:ss', 'PHP_AUTH_USER' => 'me',
            'PHP_SELF' => '/api/v1/dump/x', 'QUERY_STRING' => 'a=1&b[]=2&b[]=3&c.d=4+5', 'REDIRECT_STATUS' => '200', 'REMOTE_ADDR' => '127.0.0.1', 'REMOTE_PORT' => '40000', 'REQUEST_ID' => '0123456789abcdef',
            'REQUEST_METHOD' => 'POST', 'REQUEST_URI' => '/api/v1/dump/x?a=1', 'SCRIPT_FILENAME' => "$pool->root/v1/dump.php", 'SCRIPT_NAME' => '/api/v1/dump', 'SERVER_ADDR' => '127.0.0.1',
            'SERVER_NAME' => 'localhost', 'SERVER_PORT' => '8080', 'SERVER_PROTOCOL' => 'HTTP/1.1', 'SERVER_SOFTWARE' => 'Troupe',
        ], $server);
        same(['a' => '1', 'b' => ['2', '3'], 'c_d' => '4 5'], $get);
        same(['a' => '9', 'f' => ['g' => ['h' => '1']]], $post);
        same(['k' => 'v w', 'a_b' => '1+1', 'arr' => ['x' => '1', 'y' => '2'], 'flag' => ''], $cookie);
        same([['a' => '9', 'b' => ['2', '3'], 'c_d' => '4 5', 'f' => ['g' => ['h' => '1']]], [], []], [$request, $files, $env]);
        same('application/x-www-form-urlencoded', $headers['Content-Type']);
        same('test/1', $headers['User-Agent']);
        $pool->close();
    },

    '$_REQUEST has of an array what either of query and form has' => static function (): void {
        $pool = new Pool(['request.php' => 'return fn () => $_REQUEST;']);
        $r = $pool->process()->call('request', ['REQUEST_METHOD' => 'POST', 'QUERY_STRING' => 'a[x]=1&a[z][]=0&b=1&c[]=0', 'CONTENT_TYPE' => 'application/x-www-form-urlencoded'], 'a[y]=2&a[z][k]=3&b[]=2&c[]=5');
        same('{"a":{"x":"1","z":{"0":"0","k":"3"},"y":"2"},"b":["2"],"c":["5"]}', $r['body']);
        $pool->close();
    },

    'a file that is longer than its form allows is refused and removed' => static function (): void {
        $pool = new Pool(['files.php' => 'return fn () => array_map(fn ($file) => [$file["error"], $file["size"], $file["tmp_name"] !== "", is_uploaded_file($file["tmp_name"])], $_FILES);']);
        $p = $pool->process();
        $form = static function (string $fields) use ($pool): array {
            foreach (['short' => '123', 'long' => '1234'] as $name => $content) {
                file_put_contents("$pool->run/$name", $content);
            }
            return ['p' => $fields, 'f' => [['short', 's.txt', 'text/plain', "$pool->run/short", 0, 3], ['long', 'l.txt', 'text/plain', "$pool->run/long", 0, 4], ['none', '', '', '', 4, 0]]];
        };
        foreach (['MAX_FILE_SIZE=3', 'a=b&max_file_size=3'] as $fields) {
            same('{"short":[0,3,true,true],"long":[2,0,false,false],"none":[4,0,false,false]}', $p->call('files', ['REQUEST_METHOD' => 'POST'], '', $form($fields))['body'], $fields);
        }
        foreach (['', 'MAX_FILE_SIZE=0', 'MAX_FILE_SIZE=4', 'MAX_FILE_SIZE[]=3', 'MAX_FILE_SIZE=much'] as $fields) {
            contains('"long":[0,4,true,true]', $p->call('files', ['REQUEST_METHOD' => 'POST'], '', $form($fields))['body'], $fields);
        }
        $p->call('files');
        same([false, false], [is_file("$pool->run/short"), is_file("$pool->run/long")]);
        $pool->close();
    },

    'filter_input() has what the client sent, not what the function made of it' => static function (): void {
        $read = 'filter_input(INPUT_GET, "a"), filter_input(INPUT_POST, "b"), filter_input(INPUT_COOKIE, "c"), filter_input(INPUT_SERVER, "REQUEST_METHOD")';
        $pool = new Pool([
            'changed.php' => 'return function () { $_GET = $_POST = $_COOKIE = $_SERVER = ["a" => "x", "b" => "x", "c" => "x", "REQUEST_METHOD" => "x"]; return [' . $read . ']; };',
            'next.php' => 'return fn () => [' . $read . '];',
        ]);
        $p = $pool->process();
        $r = $p->call('changed', ['REQUEST_METHOD' => 'POST', 'QUERY_STRING' => 'a=1', 'HTTP_COOKIE' => 'c=3', 'CONTENT_TYPE' => 'application/x-www-form-urlencoded'], 'b=2');
        same('["1","2","3","POST"]', $r['body']);
        same('[null,null,null,"GET"]', $p->call('next')['body'], 'nothing of it is left');
        $pool->close();
    },

    'the Request object' => static function (): void {
        $pool = new Pool(['r.php' => 'use Troupe\Request; return fn (Request $r) => [$r->method(), $r->path(), $r->query("a"), $r->query("z", 5), $r->query(), $r->form("x"), $r->cookie("c"), $r->header("x-thing"), $r->header("Content-Type"), $r->json(), $r->id(), $r->ip(), $r->isSecure(), $r->file("none")];']);
        $p = $pool->process();
        $r = $p->call('r', ['REQUEST_METHOD' => 'PUT', 'REQUEST_URI' => '/r?a=1', 'QUERY_STRING' => 'a=1', 'HTTP_COOKIE' => 'c=d', 'HTTP_X_THING' => 't', 'CONTENT_TYPE' => 'application/json', 'HTTPS' => 'on'], '{"j":[1]}');
        same('["PUT","/r","1",5,{"a":"1"},null,"d","t","application/json",{"j":[1]},"0123456789abcdef","127.0.0.1",true,null]', $r['body']);
        same('JsonException', $p->call('r', [], 'no json')['error']['class']);
        $pool->close();
    },

    'php://input, whole, spooled and streamed' => static function (): void {
        $pool = new Pool([
            'input.php' => 'return function () { $f = fopen("php://input", "r"); $a = fread($f, 3); rewind($f); $b = stream_get_contents($f); fseek($f, -2, SEEK_END); return [$a, strlen($b), md5($b), fread($f, 9), feof($f), file_get_contents("php://input") === $b, $_POST]; };',
            'others.php' => 'return function () { $m = fopen("php://memory", "w+"); fwrite($m, "abc"); rewind($m); $t = fopen("php://temp/maxmemory:10", "w+"); fwrite($t, str_repeat("x", 100)); fseek($t, 90); ftruncate($t, 95); return [fgets($m), stream_get_contents($t), file_get_contents("php://filter/read=string.toupper/resource=php://input"), fstat($m)["size"]]; };',
            'pieces.php' => 'return function () { $f = fopen("php://input", "r"); $n = 0; $h = hash_init("md5"); while (!feof($f)) { $s = fread($f, 8192); $n += strlen($s); hash_update($h, $s); } return [$n, hash_final($h)]; };',
            'early.php' => 'return function () { return ["first" => fread(fopen("php://input", "r"), 3)]; };',
            'hello.php' => 'return fn () => [file_get_contents("php://input")];',
        ]);
        $p = $pool->process();
        $body = str_repeat("0123456789abcdef", 4096) . "yz";
        same(json_encode(['012', strlen($body), md5($body), 'yz', true, true, []]), $p->call('input', ['REQUEST_METHOD' => 'PUT'], $body)['body']);
        file_put_contents("$pool->run/spool", $body);
        same(json_encode(['012', strlen($body), md5($body), 'yz', true, true, []]), $p->call('input', ['REQUEST_METHOD' => 'POST'], '', ['b' => "$pool->run/spool"])['body']);
        file_put_contents("$pool->run/spool", 'a=' . str_repeat('b', 100_000));
        contains('"a":"bbbb', $p->call('input', ['REQUEST_METHOD' => 'POST', 'CONTENT_TYPE' => 'application/x-www-form-urlencoded; charset=utf-8'], '', ['b' => "$pool->run/spool"])['body']);
        same('["abc","xxxxx","BODY",3]', $p->call('others', ['REQUEST_METHOD' => 'POST'], 'body')['body']);
        same('[""]', $p->call('hello')['body'], 'nothing of the last body is left');
        $p->send('pieces', ['REQUEST_METHOD' => 'POST'], 'first', null, 2);
        for ($i = 0, $all = 'first'; $i < 100; $i++, $all .= $piece) {
            $p->write(2, 0, $piece = random_bytes(random_int(1, 30_000)));
        }
        $p->write(2, 1, 'last');
        same(json_encode([strlen("{$all}last"), md5("{$all}last")]), $p->reply()['body']);
        $p->send('early', ['REQUEST_METHOD' => 'POST'], '', null, 2);
        $p->write(2, 0, 'abcdef');
        same('{"first":"abc"}', $p->reply()['body']);
        $p->write(2, 0, 'ignored');
        $p->write(2, 1, 'ignored');
        same('[""]', $p->call('hello')['body']);
        $pool->close();
    },

    'php:// in a call with a body does what it does without one, and does not what it does not' => static function (): void {
        $pool = new Pool([
            'files.php' => 'return function () {
                $said = [];
                set_error_handler(function ($level, $message) use (&$said) { $said[] = $message; return true; });
                $file = new SplTempFileObject();
                $file->fwrite("one\ntwo\n");
                $file->rewind();
                $copied = copy("php://input", __DIR__ . "/copy");
                $lines = [...new SplFileObject("php://input")];
                return [$file->fgets(), $copied, @file_get_contents(__DIR__ . "/copy"), $lines, file_exists("php://input"), mkdir("php://x"), rmdir("php://x"), $said];
            };',
            'refused.php' => 'return function () {
                $said = [];
                set_error_handler(function ($level, $message) use (&$said) { $said[] = $message; return true; });
                return [unlink("php://input"), rename("php://input", "php://x"), touch("php://input"), chmod("php://input", 0600), opendir("php://input"), count($said), preg_grep("~implemented!~", $said)];
            };',
        ]);
        $p = $pool->process();
        same('["one\\n",true,"body",["body"],false,false,false,[]]', ($r = $p->call('files', ['REQUEST_METHOD' => 'POST'], 'body'))['error']['message'] ?? $r['body']);
        same('[false,false,false,false,false,5,[]]', $p->call('refused', ['REQUEST_METHOD' => 'POST'], 'body')['body']);
        $pool->close();
    },

    'a body is no code' => static function (): void {
        $pool = new Pool([
            'include.php' => 'return function () { return [@include "php://input", @include "php://filter/read=string.tolower/resource=php://input", @include "php://filter/resource=data:,<?php return 1;", is_object(include "php://filter/resource=" . __FILE__)]; };',
        ]);
        $p = $pool->process();
        same('[false,false,false,true]', $p->call('include', ['REQUEST_METHOD' => 'POST'], '<?php return "run";')['body']);
        file_put_contents("$pool->run/spool", '<?php return "run";');
        same('[false,false,false,true]', $p->call('include', ['REQUEST_METHOD' => 'POST'], '', ['b' => "$pool->run/spool"])['body']);
        $pool->close();
    },

    'a long message of an exception is cut' => static function (): void {
        $pool = new Pool(['long.php' => 'return function () { throw new Exception(str_repeat("\x01", 2_000_000)); };'], [], ['error_log' => '/dev/null']);
        $p = $pool->process();
        for ($i = 0; $i < 2; $i++) {
            same(65536, strlen($p->call('long')['error']['message']));
        }
        $pool->close();
    },

    'uploads' => static function (): void {
        $pool = new Pool([
            'up.php' => 'return function () { $moved = null; if (isset($_FILES["doc"]["tmp_name"]) && is_string($_FILES["doc"]["tmp_name"])) { $t = $_FILES["doc"]["tmp_name"]; $moved = [is_uploaded_file($t), file_get_contents($t), move_uploaded_file($t, __DIR__ . "/kept"), is_uploaded_file($t), move_uploaded_file("/etc/hostname", __DIR__ . "/stolen"), decoct(fileperms(__DIR__ . "/kept") & 0777)]; } return [$_FILES, $_POST, $moved]; };',
        ]);
        $p = $pool->process();
        $file = static function (string $name, string $content) use ($pool): string {
            file_put_contents("$pool->run/$name", $content);
            chmod("$pool->run/$name", 0600);
            return "$pool->run/$name";
        };
        [$files, $post, $moved] = json_decode($p->call('up', ['REQUEST_METHOD' => 'POST', 'CONTENT_TYPE' => 'multipart/form-data; boundary=x'], '', ['p' => 'a=1&b%5B%5D=2', 'f' => [
            ['doc', 'C:\\dir\\a "b".txt', 'text/plain', $a = $file('t1', 'one'), 0, 3],
            ['none', '', '', '', 4, 0],
            ['pics[]', 'p1.png', 'image/png', $b = $file('t2', 'two'), 0, 3],
            ['pics[]', 'p2.png', 'image/png', $c = $file('t3', 'three'), 0, 5],
            ['deep[x][y]', 'd.bin', 'application/octet-stream', '', 1, 0],
            ['bad[', 'e', 'x', $d = $file('t4', ''), 0, 0],
        ]])['body'], true);
        same(['a' => '1', 'b' => ['2']], $post);
        same(['name' => 'a "b".txt', 'full_path' => 'C:\\dir\\a "b".txt', 'type' => 'text/plain', 'tmp_name' => $a, 'error' => 0, 'size' => 3], $files['doc']);
        same(4, $files['none']['error']);
        same([['p1.png', 'p2.png'], [$b, $c], [0, 0], [3, 5]], [$files['pics']['name'], $files['pics']['tmp_name'], $files['pics']['error'], $files['pics']['size']]);
        same(['x' => ['y' => 1]], $files['deep']['error']);
        same(false, isset($files['bad']));
        same([true, 'one', true, false, false, '644'], $moved);
        same('[[],[],null]', $p->call('up')['body'], 'the next call has none');
        clearstatcache();
        same([false, false, false, false, true], array_map(is_file(...), [$a, $b, $c, $d, "$pool->root/kept"]), 'temporary files are gone');
        $pool->close();
    },

    'filter_input' => static function (): void {
        $pool = new Pool(['f.php' => 'return fn () => [filter_input(INPUT_GET, "n", FILTER_VALIDATE_INT), filter_input(INPUT_GET, "x", FILTER_VALIDATE_INT), filter_input(INPUT_GET, "none"), filter_has_var(INPUT_GET, "n"), filter_input_array(INPUT_GET, ["n" => FILTER_VALIDATE_INT]), filter_input(INPUT_GET, "none", FILTER_VALIDATE_INT, ["options" => ["default" => 7]])];']);
        same('[5,false,null,true,{"n":5},7]', $pool->process()->call('f', ['QUERY_STRING' => 'n=5&x=y'])['body']);
        $pool->close();
    },
];
