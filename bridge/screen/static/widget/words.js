/** Ours, and over them the page's own as JSON in a data block within the element. */
function wordsOf(host, language) {
  const ours = WORDS[language] ?? WORDS.en;
  const block = host.querySelector('script[type="application/json"]');
  let own = {};
  try {
    own = JSON.parse(block?.textContent || "{}");
  } catch (error) {
    console.error(`${NAME}: its words are no JSON`, error);
  }
  return { ...ours, ...own, codes: { ...ours.codes, ...own.codes }, status: { ...ours.status, ...own.status } };
}
