<?php
return function (): void {
    throw new DomainException('a secret of the house');
};
