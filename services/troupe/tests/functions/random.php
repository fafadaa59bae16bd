<?php
return fn (): array => ['pid' => getmypid(), 'draw' => mt_rand()];
