// Loads the page's program. A file of its own, because the server's policy forbids inline scripts.
import init from './page.js';

init().catch((error) => {
    document.getElementById('error-text').textContent = `The page could not start: ${error}`;
    document.getElementById('error').hidden = false;
});
