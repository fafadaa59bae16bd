<?php

declare(strict_types=1);

/* What a session puts into the head, and when: as if session_start() had sent it itself. */

const NO_STORE = 'Cache-Control: no-store, no-cache, must-revalidate';

return [
    'a session that starts after Cache-Control was set takes its place' => static function (): void {
        $public = 'header("Cache-Control: public, max-age=60");';
        $pool = new Pool([
            'after.php' => "return function () { $public session_start(); echo 'x'; };",
            'destroyed.php' => "return function () { $public session_start(); session_destroy(); echo 'x'; };",
            'committed.php' => "return function () { $public session_start(); session_commit(); echo 'x'; };",
            'unset.php' => "return function () { $public session_start(); unset(\$_SESSION); echo 'x'; };",
            'exits.php' => "return function () { $public session_start(); exit('x'); };",
            'attribute.php' => 'use Troupe\Cache; return #[Cache(ttl: 60)] function () { session_start(); session_destroy(); return "x"; };',
            'before.php' => "return function () { session_start(); $public echo 'x'; };",
            'answer.php' => 'use Troupe\Response; return function () { session_start(); return Response::text("x", headers: ["Cache-Control" => "public, max-age=60"]); };',
            'never.php' => "return function () { session_id('aliceaaaaaaaaaaaaaaaaaaa'); $public echo 'x'; };",
        ], [], ['session.save_path' => sys_get_temp_dir()]);
        $p = $pool->process();
        foreach (['after', 'destroyed', 'committed', 'unset', 'exits', 'attribute', 'before', 'answer', 'never', 'after'] as $function) {
            $r = $p->call($function, ['HTTP_COOKIE' => 'PHPSESSID=bobbbbbbbbbbbbbbbbbbbbbbb']);
            $control = array_values(preg_grep('~cache-control:~i', $r['head']));
            same(['x', [in_array($function, ['before', 'answer', 'never'], true) ? 'Cache-Control: public, max-age=60' : NO_STORE]], [$r['body'], $control], $function);
            same([], preg_grep('~^Set-Cookie:~', $r['head']), "$function: the client has the cookie, or there is no session");
        }
        $pool->close();
    },

    'what a session has put into the head can be removed and is not added again' => static function (): void {
        $pool = new Pool([
            'removed.php' => 'return function () { session_start(); header_remove("Cache-Control"); header_remove("Set-Cookie"); header_remove("Expires"); echo json_encode(headers_list()); };',
            'callback.php' => 'return function () { header_register_callback(fn () => header_remove()); session_start(); };',
            'closed.php' => 'return function () { session_start(); $open = session_write_close(); header_remove(); return [$open, session_write_close()]; };',
        ], [], ['session.save_path' => sys_get_temp_dir()]);
        $p = $pool->process();
        same('["Pragma: no-cache"]', $p->call('removed')['body']);
        same([], $p->call('callback')['head']);
        $r = $p->call('closed');
        same(['[true,false]', ['Content-Type: application/json']], [$r['body'], $r['head']]);
        $pool->close();
    },
];
