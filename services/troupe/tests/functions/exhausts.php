<?php
return fn (): string => str_repeat('x', 1 << 30);
