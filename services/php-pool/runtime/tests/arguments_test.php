<?php

declare(strict_types=1);

/* The functions in the place of built-in ones take what those take. What they then do is compared with php-fpm elsewhere. */

return [
    'null stands for any scalar, as with built-in functions' => static function (): void {
        $calls = [
            'setcookie("a", null, -1, "/")', 'setcookie("b", "x", null, null, null, null, null)', 'setrawcookie("c", "y", 0, null)', 'header("X-A: 1", true, null)', 'header(null)',
            'http_response_code(null)', 'is_uploaded_file($_FILES["f"]["tmp_name"] ?? null)', 'move_uploaded_file(null, null)', 'filter_has_var(INPUT_GET, null)',
            'filter_input(INPUT_GET, null, null, null)', 'filter_input_array(INPUT_GET, null, null)', 'ini_set(null, null)', 'set_time_limit(null)', 'set_include_path(null)', 'mt_srand(null, null)',
            'session_set_cookie_params(null)',
        ];
        $pool = new Pool(['null.php' => 'return function () { ' . implode('; ', array_map(static fn (string $call): string => "@$call", $calls)) . '; return "taken"; };']);
        same('taken', ($r = $pool->process()->call('null'))['error']['message'] ?? $r['body']);
        $pool->close();
    },

    'a callback may be what only its caller can call' => static function (): void {
        $pool = new Pool(['own.php' => 'class Own {
                private string $says = "own";
                private function method() { echo $this->says, " "; }
                private static function still($n) { echo "still $n "; }
                private function head() { header("X-Own: $this->says"); }
                public function go() {
                    register_shutdown_function([$this, "method"]);
                    register_shutdown_function([self::class, "still"], 1);
                    register_shutdown_function("Own::still", 2);
                    call_user_func("register_shutdown_function", [$this, "method"]);
                    (function () { register_shutdown_function([$this, "method"]); })();
                    header_register_callback([$this, "head"]);
                }
            }
            return function () {
                (new Own)->go();
                foreach (["register_shutdown_function", "header_register_callback"] as $function) {
                    try { $function([new Own, "method"]); } catch (TypeError $error) { echo $error->getMessage(), " "; }
                }
            };']);
        $r = $pool->process()->call('own');
        same('register_shutdown_function(): Argument #1 ($callback) must be a valid callback, cannot access private method Own::method() '
            . 'header_register_callback(): Argument #1 ($callback) must be a valid callback, cannot access private method Own::method() '
            . 'own still 1 still 2 own own ', $r['body'] ?? '');
        contains('X-Own: own', $r['head']);
        $pool->close();
    },
];
