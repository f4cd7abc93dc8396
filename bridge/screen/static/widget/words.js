// What the widget says, by language.
const WORDS = {
  en: {
    open: "Call me back", title: "We call you", close: "Close", lead: "Leave your number and your phone rings.",
    test: "This form is in test mode: nobody is called.", number: "Your phone number",
    numberHint: "With the country code if you are abroad, such as +1 212 555 0123.", name: "Your name", note: "What is it about?",
    optional: "(optional)", when: "When shall we call?", now: "Now", later: "Choose a time", day: "Day", time: "Time",
    zone: "Times are those of your time zone: {0}.", closed: "We are closed now. Choose a time, and we call you then.", full: "We are closed, and no time is free to choose.",
    submit: "Call me", wait: "One moment …", call: "Or call us:", again: "Ask again", retry: "Try again", cancel: "Do not call me",
    away: "We cannot take your wish at this moment.", awayCall: "Please call us, or try again.",
    needNumber: "Enter the number that we shall call.", needConsent: "We may call you only if you agree.", needTime: "Choose a day and a time.",
    lost: "We did not hear whether this worked. Press the button again; you will be called once.",
    link: "The connection to this page is interrupted; your callback is not.", gone: "The callback that you asked for here is not known any more. Please ask again.",
    failed: "This did not work. Try again.", unsent: "This did not get through. Try again.",
    steps: ["Asked", "Our agent", "Your phone", "Talking"],
    codes: {
      number_invalid: "This is no phone number. Check its digits.", number_type_not_allowed: "Numbers of this kind are not called.",
      region_not_allowed: "Numbers of this country are not called.", rate_limited: "Too many callbacks were asked for. Try again later, or call us.",
      idempotency_in_progress: "Your first try is still in work. Press the button again in a moment.", origin_not_allowed: "This page may not ask for callbacks.", time_past: "This time is in the past; choose a later one.", outside_hours: "We are closed at that time; choose another one.", slot_full: "This time is taken; choose another one.",
    },
    status: {
      scheduled: ["Your callback is booked", "We call you on {0}. You can close this page.", ""],
      queued: ["We have your wish", "Expect your phone to ring by {0}.", "Your phone rings as soon as someone is free."],
      calling_agent: ["Calling our agent", "", "Keep your phone at hand."], calling_customer: ["Your phone rings now", "", "Please answer it."],
      connected: ["You are connected", "", ""], done: ["Thank you for the call", "", ""],
      failed: ["We could not reach you", "", "You can ask again, or call us."], cancelled: ["Nobody will call you", "", "You cancelled this callback."],
      expired: ["Nobody was free in time", "", "We are sorry. Please ask again, or call us."],
    },
  },
  pl: {
    open: "Oddzwońcie do mnie", title: "Oddzwonimy", close: "Zamknij", lead: "Zostaw numer, a Twój telefon zadzwoni.",
    test: "Formularz działa w trybie testowym: do nikogo nie dzwonimy.", number: "Twój numer telefonu",
    numberHint: "Z zagranicy z numerem kierunkowym kraju, np. +48 22 123 45 67.", name: "Imię i nazwisko", note: "W jakiej sprawie?",
    optional: "(nieobowiązkowe)", when: "Kiedy mamy zadzwonić?", now: "Teraz", later: "Wybiorę porę", day: "Dzień", time: "Godzina",
    zone: "Godziny w Twojej strefie czasowej: {0}.", closed: "Teraz mamy zamknięte. Wybierz porę, a wtedy zadzwonimy.", full: "Mamy zamknięte i nie ma wolnych terminów.",
    submit: "Zadzwońcie", wait: "Chwileczkę …", call: "Albo zadzwoń:", again: "Poproś ponownie", retry: "Spróbuj ponownie", cancel: "Nie dzwońcie do mnie",
    away: "W tej chwili nie możemy przyjąć zgłoszenia.", awayCall: "Zadzwoń do nas lub spróbuj ponownie.",
    needNumber: "Podaj numer, na który mamy zadzwonić.", needConsent: "Możemy zadzwonić tylko za Twoją zgodą.", needTime: "Wybierz dzień i godzinę.",
    lost: "Nie wiemy, czy się udało. Naciśnij przycisk jeszcze raz; zadzwonimy tylko raz.",
    link: "Połączenie z tą stroną jest przerwane, ale zgłoszenie pozostaje ważne.", gone: "Nie znamy już tego zgłoszenia. Poproś ponownie.",
    failed: "Nie udało się. Spróbuj ponownie.", unsent: "Nie udało się wysłać. Spróbuj ponownie.",
    steps: ["Zgłoszenie", "Konsultant", "Twój telefon", "Rozmowa"],
    codes: {
      number_invalid: "To nie jest numer telefonu. Sprawdź cyfry.", number_type_not_allowed: "Na numery tego rodzaju nie dzwonimy.",
      region_not_allowed: "Na numery z tego kraju nie dzwonimy.", rate_limited: "Zgłoszeń było zbyt wiele. Spróbuj później lub zadzwoń do nas.",
      idempotency_in_progress: "Pierwsza próba jeszcze trwa. Za chwilę naciśnij przycisk ponownie.", origin_not_allowed: "Z tej strony nie można prosić o telefon.", time_past: "Ta pora już minęła; wybierz późniejszą.", outside_hours: "O tej porze mamy zamknięte; wybierz inną.", slot_full: "Ten termin jest już zajęty; wybierz inny.",
    },
    status: {
      scheduled: ["Rozmowa jest umówiona", "Zadzwonimy: {0}. Możesz zamknąć tę stronę.", ""],
      queued: ["Mamy Twoje zgłoszenie", "Twój telefon powinien zadzwonić do {0}.", "Zadzwonimy, gdy tylko ktoś będzie wolny."],
      calling_agent: ["Dzwonimy do konsultanta", "", "Miej telefon pod ręką."], calling_customer: ["Twój telefon teraz dzwoni", "", "Odbierz, proszę."],
      connected: ["Trwa rozmowa", "", ""], done: ["Dziękujemy za rozmowę", "", ""],
      failed: ["Nie udało się dodzwonić", "", "Poproś ponownie lub zadzwoń do nas."], cancelled: ["Nie zadzwonimy", "", "Zgłoszenie zostało odwołane."],
      expired: ["Nikt nie zwolnił się na czas", "", "Przepraszamy. Poproś ponownie lub zadzwoń do nas."],
    },
  },
  ru: {
    open: "Перезвоните мне", title: "Мы вам перезвоним", close: "Закрыть", lead: "Оставьте номер, и ваш телефон зазвонит.",
    test: "Форма в тестовом режиме: звонков не будет.", number: "Ваш номер телефона",
    numberHint: "Из-за границы — с кодом страны, например +7 495 123-45-67.", name: "Ваше имя", note: "По какому вопросу?",
    optional: "(необязательно)", when: "Когда вам позвонить?", now: "Сейчас", later: "Выбрать время", day: "День", time: "Время",
    zone: "Время указано по вашему часовому поясу: {0}.", closed: "Сейчас мы закрыты. Выберите время, и мы позвоним.", full: "Мы закрыты, и свободного времени нет.",
    submit: "Позвоните мне", wait: "Одну минуту …", call: "Или позвоните нам:", again: "Попросить ещё раз", retry: "Повторить", cancel: "Не звоните мне",
    away: "Сейчас мы не можем принять заявку.", awayCall: "Позвоните нам или попробуйте ещё раз.",
    needNumber: "Введите номер, на который позвонить.", needConsent: "Мы можем позвонить только с вашего согласия.", needTime: "Выберите день и время.",
    lost: "Мы не знаем, получилось ли. Нажмите кнопку ещё раз: позвоним только один раз.",
    link: "Связь с этой страницей прервалась, но заявка остаётся в силе.", gone: "Эта заявка больше не известна. Попросите ещё раз.",
    failed: "Не получилось. Попробуйте ещё раз.", unsent: "Не удалось отправить. Попробуйте ещё раз.",
    steps: ["Заявка", "Оператор", "Ваш телефон", "Разговор"],
    codes: {
      number_invalid: "Это не номер телефона. Проверьте цифры.", number_type_not_allowed: "На номера этого вида мы не звоним.",
      region_not_allowed: "На номера этой страны мы не звоним.", rate_limited: "Заявок слишком много. Попробуйте позже или позвоните нам.",
      idempotency_in_progress: "Первая попытка ещё выполняется. Нажмите кнопку чуть позже.", origin_not_allowed: "С этой страницы звонок заказать нельзя.", time_past: "Это время уже прошло; выберите другое.", outside_hours: "В это время мы закрыты; выберите другое.", slot_full: "Это время уже занято; выберите другое.",
    },
    status: {
      scheduled: ["Звонок назначен", "Мы позвоним: {0}. Страницу можно закрыть.", ""],
      queued: ["Заявка принята", "Телефон должен зазвонить до {0}.", "Мы позвоним, как только кто-нибудь освободится."],
      calling_agent: ["Звоним нашему оператору", "", "Держите телефон под рукой."], calling_customer: ["Ваш телефон звонит", "", "Ответьте, пожалуйста."],
      connected: ["Вы на связи", "", ""], done: ["Спасибо за разговор", "", ""],
      failed: ["Дозвониться не удалось", "", "Попросите ещё раз или позвоните нам."], cancelled: ["Звонка не будет", "", "Вы отменили заявку."],
      expired: ["Никто не освободился вовремя", "", "Извините. Попросите ещё раз или позвоните нам."],
    },
  },
};

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
