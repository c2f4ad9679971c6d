// Follows the system's light or dark mode, also when it changes.
const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();

const reference = document.getElementById("reference");
SwaggerUIBundle({
  domNode: reference,
  url: reference.dataset.openapi,
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  tryItOutEnabled: true,
  // The validator would call another host.
  validatorUrl: null,
});
